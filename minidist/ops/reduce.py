"""Reductions: sum, mean, amax and softmax, with PyTorch's dim and keepdim."""

import math

import numpy as np

from ..array import int64, is_floating
from .op import axes_of, differentiable


@differentiable
def _sum(x, axes, keepdim):
    shape, kept = x.shape, tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    dtype = x.dtype if is_floating(x) else int64  # of bytes NumPy would make uint64
    y = x.sum(axes, dtype, keepdims=keepdim)
    return y, lambda g: np.broadcast_to(g.reshape(kept), shape)


def sum(x, dim=None, keepdim=False):
    """The sum over dim (one, several, or all)."""
    return _sum(x, axes_of(dim, x.ndim), keepdim)


def mean(x, dim=None, keepdim=False):
    """The mean over dim (one, several, or all)."""
    _want_floating("mean", x)
    axes = axes_of(dim, x.ndim)
    return _sum(x, axes, keepdim) / math.prod(x.shape[a] for a in axes)


@differentiable
def _amax(x, axes, keepdim):
    y = x.max(axes, keepdims=True)
    hit = x == y

    def vjp(g):  # equal maxima share the cotangent, as PyTorch's amax
        return hit * (g.reshape(y.shape) / hit.sum(axes, keepdims=True)).astype(g.dtype)

    return y if keepdim else y.squeeze(axes), vjp


def amax(x, dim=None, keepdim=False):
    """The largest value over dim; equal ones share the gradient."""
    axes = axes_of(dim, x.ndim)
    if any(x.shape[a] == 0 for a in axes):
        raise IndexError(f"amax over {axes} of shape {x.shape}: nothing to choose from")
    return _amax(x, axes, keepdim)


@differentiable
def _softmax(x, axes):
    e = np.exp(x - x.max(axes, keepdims=True, initial=-np.inf))
    y = e / e.sum(axes, keepdims=True)
    return y, lambda g: y * (g - (g * y).sum(axes, keepdims=True))


def softmax(x, dim):
    """exp(x) / sum(exp(x)) along dim, with the maximum taken off first."""
    _want_floating("softmax", x)
    return _softmax(x, axes_of((dim,), x.ndim))


def _want_floating(name, x):
    if not is_floating(x.data):
        raise RuntimeError(f"{name} of {x.dtype.name}: convert with .float() first")
