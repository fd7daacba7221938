"""Making Tensors: PyTorch's names, float32 unless another dtype is asked for."""

from __future__ import annotations

from typing import Any

import numpy as np

from .array import DEFAULT, DTypeLike, as_array, dtype_of
from .random import default_generator
from .tensor import Tensor


def _sizes(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else size


def tensor(data: Any, dtype: DTypeLike = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of data: numbers, nested lists, an array or a tensor."""
    array = as_array(data.data if isinstance(data, Tensor) else data, dtype)
    return Tensor(array.copy(), requires_grad)


def full(size: Any, value: Any, dtype: DTypeLike = None, requires_grad: bool = False) -> Tensor:
    """A tensor of one value, whose dtype it takes unless another is given."""
    array = as_array(value, dtype)
    return Tensor(np.full(_sizes((size,)), array, array.dtype), requires_grad)


def zeros(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    return full(_sizes(size), 0, dtype, requires_grad)


def ones(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    return full(_sizes(size), 1, dtype, requires_grad)


def zeros_like(other: Tensor, requires_grad: bool = False) -> Tensor:
    return full(other.shape, 0, other.dtype, requires_grad)


def ones_like(other: Tensor, requires_grad: bool = False) -> Tensor:
    return full(other.shape, 1, other.dtype, requires_grad)


def arange(*bounds: Any, dtype: DTypeLike = None) -> Tensor:
    """arange(stop), arange(start, stop) or arange(start, stop, step)."""
    array = np.arange(*bounds)
    default = DEFAULT if array.dtype.kind == "f" else array.dtype
    return Tensor(array.astype(dtype_of(default if dtype is None else dtype)))


def randn(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    """Standard normal numbers from the default stream."""
    array = default_generator().standard_normal(_sizes(size))
    return Tensor(array.astype(dtype_of(dtype)), requires_grad)


def rand(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    """Uniform numbers in [0, 1) from the default stream."""
    array = default_generator().random(_sizes(size))
    return Tensor(array.astype(dtype_of(dtype)), requires_grad)
