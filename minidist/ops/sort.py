"""Choosing and ordering along a dimension: the values, and the indices that they came from."""

import math
from typing import NamedTuple

from ..kernels import arrays as xp
from ..kernels.half_precision import wide
from ..tensor.dtypes import is_floating
from ..tensor.tensor import Tensor
from .elementwise import maximum, minimum
from .index import pick
from .op import axes_of, with_axis
from .reduce import extreme_of_all, want_elements


class Chosen(NamedTuple):
    """Values with their indices along the dimension; the gradient goes to the indices."""

    values: Tensor
    indices: Tensor


def _arg(name, function, x, dim, keepdim):
    if x.dtype == bool:
        raise RuntimeError(f"{name} of bool: convert with .long() first")
    want_elements(name, x, dim, IndexError)
    axis = dim if x.ndim else None
    return Tensor(xp.asarray(function(wide(x.data), axis, keepdims=keepdim)))


@with_axis
def argmax(input, dim=None, keepdim=False):
    """The index of the first largest element along dim, or in the flattened input."""
    return _arg("argmax", xp.argmax, input, dim, keepdim)


@with_axis
def argmin(input, dim=None, keepdim=False):
    """The index of the first smallest element along dim, or in the flattened input."""
    return _arg("argmin", xp.argmin, input, dim, keepdim)


def _extreme(x, dim, keepdim, find):
    want_elements(find.__name__, x, dim)
    axis = axes_of((dim,), x.ndim)
    index = xp.asarray(find(wide(x.data), *axis or (None,), keepdims=True))
    both = _chosen(x, axis, index)
    return both if keepdim or not axis else Chosen(*(t.squeeze(axis) for t in both))


def _of_all(x, find):
    want_elements(find.__name__, x, None)
    return extreme_of_all(x, find)


def _chosen(x, axis, index):
    return Chosen(pick(x, axis[0] if axis else 0, index), Tensor(index))


@with_axis
def max(input, dim=None, keepdim=False, *, other=None):
    """The largest element; or (values, indices) of those along dim; or maximum(input, other)."""
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return maximum(input, other)
    return _of_all(input, xp.max) if dim is None else _extreme(input, dim, keepdim, xp.argmax)


@with_axis
def min(input, dim=None, keepdim=False, *, other=None):
    """The smallest element; or (values, indices) of those along dim; or minimum(input, other)."""
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return minimum(input, other)
    return _of_all(input, xp.min) if dim is None else _extreme(input, dim, keepdim, xp.argmin)


def _order(x, axis, descending):
    """Indices that sort; equal elements stay in order, NaN counts as the largest."""
    if not x.ndim:
        return xp.zeros_like(x, xp.int64)
    if not descending:
        return x.argsort(axis, kind="stable")
    return xp.flip(x.shape[axis] - 1 - xp.flip(x, axis).argsort(axis, kind="stable"), axis)


def argsort(input, dim=-1, descending=False, stable=True):
    """The indices that sort along dim, always stable."""
    axis = axes_of((dim,), input.ndim)
    return Tensor(_order(wide(input.data), axis[0] if axis else 0, descending))


def sort(input, dim=-1, descending=False, stable=True):
    """(values, indices) in order along dim, always stable."""
    index = argsort(input, dim, descending).data
    return _chosen(input, axes_of((dim,), input.ndim), index)


def topk(input, k, dim=-1, largest=True, sorted=True):
    """(values, indices) of the k largest, or smallest, along dim, in order."""
    axis = axes_of((dim,), input.ndim)
    x, at = xp.atleast_1d(wide(input.data)), axis[0] if axis else 0
    size = x.shape[at]
    if not (0 if axis else 1) <= k <= size:
        raise RuntimeError(f"topk: k = {k} of {size} elements along {dim} of {input.shape}")
    index = _order(x, at, largest) if k in (0, size) else _partition(x, k, at, largest)
    index = index[(slice(None),) * at + (slice(k),)]
    return _chosen(input, axis, index if axis else index.reshape(()))


def _partition(x, k, axis, largest):
    """The indices of the k largest, or smallest, in order, without sorting the others."""
    cut = x.shape[axis] - k if largest else k
    parts = xp.split(x.argpartition(cut - (not largest), axis), [cut], axis)
    found = parts[1] if largest else parts[0]
    return xp.take_along_axis(
        found, _order(xp.take_along_axis(x, found, axis), axis, largest), axis
    )


@with_axis
def median(input, dim=None, keepdim=False):
    """The middle element, the lower of two; with dim, (values, indices) of the medians along it.

    If there is a NaN, the median is the first NaN.
    """
    if dim is None and is_floating(input.data) and not input.numel():
        return input.sum() * math.nan  # as PyTorch
    if input.dtype == bool:
        raise NotImplementedError("median of bool: convert with .long() first")
    want_elements("median", input, dim)
    if dim is None:
        return extreme_of_all(input, _middle_of_all)
    axis = axes_of((dim,), input.ndim)
    index = argsort(input, dim).data
    both = _chosen(input, axis, _middle(wide(input.data), index, axis[0]) if axis else index)
    return both if keepdim or not axis else Chosen(*(t.squeeze(axis) for t in both))


def _middle_of_all(x):
    row = x.reshape(-1)
    return row[_middle(row, row.argsort(kind="stable"), 0)][0]


def _middle(x, order, axis):
    """The index of the median, from indices that sort x: of the first NaN if there is one."""
    nans, n = (x != x).sum(axis, keepdims=True), x.shape[axis]
    return xp.take_along_axis(order, xp.where(nans > 0, n - nans, (n - 1) // 2), axis)


def unique(input, sorted=True, return_inverse=False, return_counts=False, dim=None):
    """The different elements, or slices along dim, in order; each NaN is one of its own."""
    array = wide(input.data) if dim is not None else wide(input.data).reshape(-1)
    found = xp.unique(array, False, return_inverse, return_counts, dim, equal_nan=False)
    if not return_inverse and not return_counts:
        return Tensor(found).to(input.dtype)
    if return_inverse and dim is None:
        found = found[0], found[1].reshape(input.shape), *found[2:]
    return Tensor(found[0]).to(input.dtype), *map(Tensor, found[1:])
