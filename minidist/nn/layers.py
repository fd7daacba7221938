"""Layers: PyTorch's names, arguments, parameter shapes and initial distributions."""

from __future__ import annotations

import math
from typing import Any

from .. import creation
from ..array import DEFAULT, DTypeLike
from ..tensor import Tensor
from . import functional as F
from .module import Module, Parameter


def _uniform(shape: tuple[int, ...], bound: float, dtype: DTypeLike) -> Parameter:
    return Parameter((creation.rand(shape, dtype=dtype).data * 2 - 1) * bound)


class Linear(Module):
    """y = x Wᵀ + b, weight (out, in), bias (out,), both uniform in ±1/sqrt(in) at first."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, dtype: DTypeLike = DEFAULT
    ):
        bound = 1 / math.sqrt(in_features) if in_features else 0.0
        self.weight = _uniform((out_features, in_features), bound, dtype)
        self.bias = _uniform((out_features,), bound, dtype) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight, self.bias)

    def extra_repr(self) -> str:
        out, into = self.weight.shape
        return f"in_features={into}, out_features={out}, bias={self.bias is not None}"


class Embedding(Module):
    """A table of vectors, weight (num_embeddings, embedding_dim), standard normal at first."""

    def __init__(self, num_embeddings: int, embedding_dim: int, dtype: DTypeLike = DEFAULT):
        self.weight = Parameter(creation.randn(num_embeddings, embedding_dim, dtype=dtype))

    def forward(self, index: Tensor) -> Tensor:
        return F.embedding(index, self.weight)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, {self.weight.shape[1]}"


class LayerNorm(Module):
    """Layer norm over the last dimensions (Ba et al. 2016), weight 1 and bias 0 at first."""

    def __init__(self, normalized_shape: Any, eps: float = 1e-5, dtype: DTypeLike = DEFAULT):
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape, self.eps = tuple(shape), eps
        self.weight = Parameter(creation.ones(self.normalized_shape, dtype=dtype))
        self.bias = Parameter(creation.zeros(self.normalized_shape, dtype=dtype))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        return f"{self.normalized_shape}, eps={self.eps}"


class GELU(Module):
    """x·Φ(x), exact or approximate='tanh'."""

    def __init__(self, approximate: str = "none"):
        self.approximate = approximate

    def forward(self, x: Tensor) -> Tensor:
        return F.gelu(x, self.approximate)


class ReLU(Module):
    """max(x, 0)."""

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x)


class Dropout(Module):
    """Zero elements with probability p while training.

    `name` keys the mask where counter-based randomness is in force (`random.at`): two layers
    of one model need two names.
    """

    def __init__(self, p: float = 0.5, name: str = "dropout"):
        self.p, self.name = p, name

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.p, self.training, self.name)

    def extra_repr(self) -> str:
        return f"p={self.p}"
