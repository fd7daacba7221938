"""Operations that rearrange: their VJPs rearrange back."""

import math

import numpy as np

from ..autograd import Joint
from .op import axes_of, differentiable, result_dtype, unbroadcast


def _sizes(shape: tuple) -> tuple:
    """reshape(2, 3) and reshape((2, 3)) mean the same."""
    return tuple(shape[0]) if len(shape) == 1 and isinstance(shape[0], tuple | list) else shape


@differentiable
def _reshape(x, shape):
    before = x.shape
    if any(n < -1 for n in shape):  # NumPy would take it for -1
        raise RuntimeError(f"reshape: negative size in {shape}: only -1 has a meaning")
    try:
        y = x.reshape(shape)
    except ValueError:
        raise RuntimeError(
            f"reshape: {x.size} elements of shape {before} do not fill {shape}"
        ) from None
    return y, lambda g: g.reshape(before)


def reshape(x, *shape):
    """The same elements in another shape; one size may be -1."""
    return _reshape(x, _sizes(shape))


view = reshape


def flatten(x, start_dim=0, end_dim=-1):
    """Merge the dimensions from start_dim to end_dim, both included."""
    if not x.ndim:
        return _reshape(x, (1,))
    start, end = axes_of((start_dim,), x.ndim)[0], axes_of((end_dim,), x.ndim)[0] + 1
    if start >= end:
        raise RuntimeError(f"flatten: start_dim {start_dim} comes after end_dim {end_dim}")
    return _reshape(x, (*x.shape[:start], math.prod(x.shape[start:end]), *x.shape[end:]))


@differentiable
def _permute(x, dims):
    back = tuple(np.argsort(dims))
    return x.transpose(dims), lambda g: g.transpose(back)


def permute(x, *dims):
    """Dimension i of the result is dimension dims[i] of x."""
    order = axes_of(tuple(_sizes(dims)), x.ndim) if x.ndim else ()
    if len(_sizes(dims)) != x.ndim:
        raise RuntimeError(f"permute: {dims} does not name each of the {x.ndim} dimensions once")
    return _permute(x, order)


def transpose(x, dim0, dim1):
    """Swap two dimensions."""
    swapped, dims = axes_of((dim0,), x.ndim) + axes_of((dim1,), x.ndim), list(range(x.ndim))
    for a, b in zip(swapped, reversed(swapped)):
        dims[a] = b
    return _permute(x, tuple(dims))


def squeeze(x, dim=None):
    """Drop the dimensions dim (one or several) whose size is 1, or all of size 1."""
    drop = axes_of(dim, x.ndim)
    return _reshape(x, tuple(n for i, n in enumerate(x.shape) if n != 1 or i not in drop))


def unsqueeze(x, dim):
    """A new dimension of size 1 at dim."""
    at = axes_of((dim,), x.ndim + 1)[0]
    return _reshape(x, (*x.shape[:at], 1, *x.shape[at:]))


@differentiable
def _expand(x, shape):
    before = x.shape
    try:
        y = np.broadcast_to(x, shape)
    except ValueError:
        raise RuntimeError(f"expand: {before} to {shape}: only sizes of 1 can grow") from None
    return y, lambda g: unbroadcast(g, before)


def expand(x, *shape):
    """Repeat dimensions of size 1 without copying; -1 keeps a size."""
    shape = _sizes(shape)
    kept = (None,) * (len(shape) - x.ndim) + x.shape
    sizes = tuple(k if n == -1 else n for n, k in zip(shape, kept))
    if len(sizes) < x.ndim or None in sizes:
        raise RuntimeError(f"expand: {x.shape} to {shape}: a new dimension needs a size")
    return _expand(x, sizes)


@differentiable
def _getitem(x, index):
    shape, dtype, basic = x.shape, x.dtype, _is_basic(index)

    def vjp(g):
        whole = np.zeros(shape, dtype)
        if basic:
            whole[index] = g
        else:  # an element picked twice gets both cotangents
            np.add.at(whole, index, g)
        return whole

    return x[index], vjp


def _is_basic(index) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return all(isinstance(p, int | np.integer | slice | type(None) | type(...)) for p in parts)


def getitem(x, index):
    """x[index]: ints, slices, None, ellipsis, arrays, boolean masks."""
    parts = index if isinstance(index, tuple) else (index,)
    plain = tuple(getattr(p, "data", p) if hasattr(p, "node") else p for p in parts)
    try:
        return _getitem(x, plain if isinstance(index, tuple) else plain[0])
    except IndexError as error:
        raise IndexError(f"{error} (indexing a tensor of shape {x.shape})") from None


@differentiable
def _cat(*arrays, dim):
    edges = np.cumsum([a.shape[dim] for a in arrays])[:-1]
    dtypes = [a.dtype for a in arrays]

    def vjp(g):
        return [p.astype(t, copy=False) for p, t in zip(np.split(g, edges, dim), dtypes)]

    return np.concatenate(arrays, dim, dtype=result_dtype(arrays)), Joint(vjp)


def cat(tensors, dim=0):
    """Tensors one after the other along dim; all other sizes must be equal."""
    shapes = [t.shape for t in tensors]
    if not shapes:
        raise ValueError("cat: no tensors")
    if not all(shapes):
        raise RuntimeError(f"cat: tensors without dimensions: {shapes}: unsqueeze(0) each")
    at = axes_of((dim,), len(shapes[0]))[0]
    if len({(len(s), s[:at], s[at + 1 :]) for s in shapes}) > 1:
        raise RuntimeError(f"cat along {dim}: sizes differ elsewhere too: {shapes}")
    return _cat(*tensors, dim=at)
