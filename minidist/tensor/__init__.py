"""The Tensor, and how one is made."""

from .tensor import Tensor as Tensor
