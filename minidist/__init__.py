"""minidist: distributed training of language models, written by hand, small enough to read."""

from . import autograd, random
from .array import bool_, float16, float32, float64, int32, int64
from .autograd import enable_grad, is_grad_enabled, no_grad
from .creation import arange, full, ones, ones_like, rand, randn, tensor, zeros, zeros_like
from .ops import cat
from .random import manual_seed
from .tensor import Tensor

__version__ = "0.1.0"

__all__ = [
    "Tensor",
    "arange",
    "autograd",
    "bool_",
    "cat",
    "enable_grad",
    "float16",
    "float32",
    "float64",
    "full",
    "int32",
    "int64",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "random",
    "tensor",
    "zeros",
    "zeros_like",
]
