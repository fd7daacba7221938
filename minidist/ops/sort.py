"""Choosing and ordering along a dimension: the values, and the indices that they came from."""

from typing import NamedTuple

from ..kernels import arrays as np
from ..kernels.halves import wide
from ..tensor import Tensor
from .elementwise import maximum, minimum
from .index import pick
from .op import axes_of
from .reduce import amax, amin, want_elements


class Chosen(NamedTuple):
    """Values with their indices along the dimension; the gradient goes to the indices."""

    values: Tensor
    indices: Tensor


def _arg(name, function, x, dim, keepdim):
    if x.dtype == bool:
        raise RuntimeError(f"{name} of bool: convert with .long() first")
    want_elements(name, x, dim, IndexError)
    axis = dim if x.ndim else None
    return Tensor(np.asarray(function(wide(x.data), axis, keepdims=keepdim)))


def argmax(input, dim=None, keepdim=False):
    """The index of the first largest element along dim, or in the flattened input."""
    return _arg("argmax", np.argmax, input, dim, keepdim)


def argmin(input, dim=None, keepdim=False):
    """The index of the first smallest element along dim, or in the flattened input."""
    return _arg("argmin", np.argmin, input, dim, keepdim)


def _extreme(x, dim, keepdim, find):
    want_elements(find.__name__, x, dim)
    axis = axes_of((dim,), x.ndim)
    index = np.asarray(find(wide(x.data), *axis or (None,), keepdims=True))
    both = _chosen(x, axis, index)
    return both if keepdim or not axis else Chosen(*(t.squeeze(axis) for t in both))


def _chosen(x, axis, index):
    return Chosen(pick(x, axis[0] if axis else 0, index), Tensor(index))


def max(input, dim=None, keepdim=False, *, other=None):
    """The largest element; or (values, indices) of those along dim; or maximum(input, other)."""
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return maximum(input, other)
    return amax(input) if dim is None else _extreme(input, dim, keepdim, np.argmax)


def min(input, dim=None, keepdim=False, *, other=None):
    """The smallest element; or (values, indices) of those along dim; or minimum(input, other)."""
    other = dim if isinstance(dim, Tensor) else other
    if other is not None:
        return minimum(input, other)
    return amin(input) if dim is None else _extreme(input, dim, keepdim, np.argmin)


def _order(x, axis, descending):
    """Indices that sort; equal elements stay in order, NaN counts as the largest."""
    if not x.ndim:
        return np.zeros_like(x, np.int64)
    if not descending:
        return x.argsort(axis, kind="stable")
    return np.flip(x.shape[axis] - 1 - np.flip(x, axis).argsort(axis, kind="stable"), axis)


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
    x, at = np.atleast_1d(wide(input.data)), axis[0] if axis else 0
    size = x.shape[at]
    if not (0 if axis else 1) <= k <= size:
        raise RuntimeError(f"topk: k = {k} of {size} elements along {dim} of {input.shape}")
    index = _order(x, at, largest) if k in (0, size) else _partition(x, k, at, largest)
    index = index[(slice(None),) * at + (slice(k),)]
    return _chosen(input, axis, index if axis else index.reshape(()))


def _partition(x, k, axis, largest):
    """The indices of the k largest, or smallest, in order, without sorting the others."""
    cut = x.shape[axis] - k if largest else k
    parts = np.split(x.argpartition(cut - (not largest), axis), [cut], axis)
    found = parts[1] if largest else parts[0]
    return np.take_along_axis(
        found, _order(np.take_along_axis(x, found, axis), axis, largest), axis
    )
