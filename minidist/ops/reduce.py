"""Reductions over one dimension, several or all, with PyTorch's dim and keepdim."""

import math

from ..kernels import arrays as xp
from ..kernels.half_precision import wide
from ..tensor.dtypes import dtype_of, int64, is_floating
from ..tensor.tensor import Tensor
from .elementwise import where
from .op import axes_of, differentiable, want_floating, with_axis
from .shape import movedim


def _kept(shape, axes):
    return tuple(1 if i in axes else n for i, n in enumerate(shape))


def want_elements(name, x, dim, error=RuntimeError):
    """The axes of dim. An empty axis is refused, because it has no element to choose."""
    axes = axes_of(dim, x.ndim)
    if any_empty := [a for a in axes if x.shape[a] == 0]:
        error = error if dim is None else IndexError
        raise error(f"{name} over {any_empty} of shape {x.shape}: nothing to choose from")
    return axes


def _total_dtype(x, dtype):
    """The dtype of a sum or product: `dtype` if given, int64 for integers (also for uint8)."""
    return dtype_of(dtype) if dtype is not None else x.dtype if is_floating(x.data) else int64


@differentiable(autocast="fp32")
def _sum(x, axes, keepdim):
    shape, kept = x.shape, _kept(x.shape, axes)
    y = x.sum(axes, x.dtype, keepdims=keepdim)
    return y, lambda g: xp.broadcast_to(g.reshape(kept), shape)


@differentiable(autocast="fp32")
def _mean(x, axes, keepdim, total):
    """Σ x / total, divided before it is rounded, because the sum may be too large for float16."""
    shape, kept = x.shape, _kept(x.shape, axes)
    over = lambda a: (a / total).astype(x.dtype, copy=False)
    y = over(x.sum(axes, x.dtype, keepdims=keepdim))
    return y, lambda g: xp.broadcast_to(over(g).reshape(kept), shape)


def sum_over(input, total):
    """The sum of all elements, divided by total (a number, or an array of one on a GPU)."""
    want_floating("mean", input)
    return _mean(input, tuple(range(input.ndim)), False, total)


@with_axis
def sum(input, dim=None, keepdim=False, *, dtype=None):
    """The sum over dim (one, several, or all)."""
    return _sum(input.to(_total_dtype(input, dtype)), axes_of(dim, input.ndim), keepdim)


@with_axis
def mean(input, dim=None, keepdim=False, *, dtype=None):
    """The mean over dim (one, several, or all)."""
    x = input if dtype is None else input.to(dtype)
    want_floating("mean", x)
    axes = axes_of(dim, x.ndim)
    return _mean(x, axes, keepdim, math.prod(x.shape[a] for a in axes) or math.nan)


SAFE = 1e-30  # a smaller sum of powers in float32 may have lost some or all digits
CLOSE = 1e-6  # if the variance is smaller than CLOSE · mean², the mean's rounding error shows


def _in_range(sums, x):
    """sums(x), whose first value is a sum of powers; in float64 if that leaves float32's range."""
    with xp.errstate(over="ignore", invalid="ignore"):  # float64 warns by itself
        found = sums(x)
    fits = x.dtype != xp.float32 or (not xp.on_gpu(x) and _between(SAFE, found[0]))
    return found if fits else sums(x.astype(float))


def _between(low, sums):
    """Whether all sums are above low (a number or an array), and finite."""
    if sums.size == 1:  # quicker than arrays of one element
        return (low if isinstance(low, float) else low.item()) < sums.item() < math.inf
    return ((sums > low) & (sums < math.inf)).all()


def _rounded(y, like):
    if y.dtype == like.dtype:
        return y
    with xp.errstate(over="ignore"):
        return y.astype(like.dtype, copy=False)


@differentiable(autocast="fp32")
def _var(x, axes, keepdim, correction, root):
    shape, kept = x.shape, _kept(x.shape, axes)
    n = math.prod(shape[a] for a in axes)
    free = max(n - correction, 0) or math.nan

    def squares(x):
        mean = x.sum(axes, keepdims=True) / (n or math.nan)
        d = x - mean
        total = (d * d).sum(axes, keepdims=True)
        if xp.on_gpu(x) or not _between(CLOSE * n * mean * mean, total):
            d -= d.sum(axes, keepdims=True) / (n or math.nan)  # the rounding error of the mean
            total = (d * d).sum(axes, keepdims=True)
        return total, d

    total, d = _in_range(squares, x)
    y = xp.sqrt(total / free) if root else total / free

    def vjp(g):  # of a root of 0 none, as PyTorch's
        g = g.reshape(kept)
        scale = g / (free * xp.where(y == 0, xp.inf, y)) if root else 2 / free * g
        return _rounded(scale * d, x)

    return _rounded(y if keepdim else y.squeeze(axes), x), vjp


def _spread(name, x, dim, unbiased, keepdim, correction, root=False):
    want_floating(name, x)
    if isinstance(dim, bool):  # var(False)
        dim, unbiased = None, dim
    correction, axes = int(unbiased) if correction is None else correction, axes_of(dim, x.ndim)
    if 0 < math.prod(x.shape[a] for a in axes) <= correction:
        return _without_freedom(x, axes, keepdim, root)
    return _var(x, axes, keepdim, correction, root)


@differentiable(autocast="fp32")
def _without_freedom(x, axes, keepdim, root):
    """For n - correction <= 0: inf if the numbers differ, NaN if they are equal."""
    kept = _kept(x.shape, axes)
    with xp.errstate(invalid="ignore"):  # inf - inf is NaN, too
        width = x.max(axes, keepdims=True) - x.min(axes, keepdims=True)
        y = xp.where(width * 0 + width > 0, xp.inf, xp.nan).astype(x.dtype)

    def vjp(g):  # the gradient of a root is inf/inf
        slope = xp.nan if root else xp.where(x == x.mean(axes, keepdims=True), xp.nan, xp.inf)
        return (g.reshape(kept) * xp.broadcast_to(slope, x.shape)).astype(x.dtype)

    return y if keepdim else y.squeeze(axes), vjp


@with_axis
def var(input, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """Σ (x - mean)² / (n - correction); correction is 1, or 0 if not unbiased."""
    return _spread("var", input, dim, unbiased, keepdim, correction)


@with_axis
def std(input, dim=None, unbiased=True, keepdim=False, *, correction=None):
    """The square root of var."""
    return _spread("std", input, dim, unbiased, keepdim, correction, root=True)


@differentiable(autocast="fp32")
def _prod(x):
    """Over the last dimension."""

    y = x.prod(-1, x.dtype)

    def vjp(g):  # the product of all others
        if not xp.on_gpu(x) and x.all():
            return (g * y)[..., None] / x
        ones = xp.ones_like(x[..., :1])
        before = xp.concatenate([ones, x[..., :-1]], -1).cumprod(-1)
        behind = xp.concatenate([ones, x[..., :0:-1]], -1).cumprod(-1)[..., ::-1]
        return g[..., None] * (before * behind)

    return y, vjp


@with_axis
def prod(input, dim=None, keepdim=False, *, dtype=None):
    """The product over one dimension, or over all."""
    x = input.to(_total_dtype(input, dtype))
    axes = () if dim is None else axes_of((dim,), x.ndim)
    if not axes:
        return _prod(x.reshape(-1 if x.numel() else 0))
    y = _prod(x.unsqueeze(-1).transpose(axes[0], -1))
    return y if keepdim else y.squeeze(axes)


@differentiable(autocast="fallthrough")
def _extreme(x, axes, keepdim, choose):
    y = choose(x, axes, keepdims=True)
    hit = x == y

    def vjp(g):  # equal ones share the cotangent
        return hit * (g.reshape(y.shape) / hit.sum(axes, keepdims=True)).astype(g.dtype)

    return y if keepdim else y.squeeze(axes), vjp


@differentiable(autocast="fallthrough")
def extreme_of_all(x, choose):
    """The largest or smallest element. Equal ones share the cotangent, and so do all NaNs."""
    y = choose(x)

    def vjp(g):
        hit, dx = x == y, xp.zeros_like(x, g.dtype)
        if xp.on_gpu(y) or y != y:
            hit |= xp.isnan(x)
        xp.copyto(dx, (g / xp.count_nonzero(hit)).astype(g.dtype), where=hit)
        return dx

    return y, vjp


@with_axis
def amax(input, dim=None, keepdim=False):
    """The largest value over dim; equal ones share the gradient."""
    return _extreme(input, want_elements("amax", input, dim), keepdim, xp.max)


@with_axis
def amin(input, dim=None, keepdim=False):
    """The smallest value over dim; equal ones share the gradient."""
    return _extreme(input, want_elements("amin", input, dim), keepdim, xp.min)


def _truth(function, x, dim, keepdim):
    axes = () if dim == () else axes_of(dim, x.ndim)  # PyTorch's () means none here, not all
    y = Tensor(function(wide(x.data), axis=axes, keepdims=keepdim))
    return y.to(x.dtype) if x.dtype == xp.uint8 else y


@with_axis
def any(input, dim=None, keepdim=False):
    """Whether any element over dim is not 0."""
    return _truth(xp.any, input, dim, keepdim)


@with_axis
def all(input, dim=None, keepdim=False):
    """Whether all elements over dim are not 0."""
    return _truth(xp.all, input, dim, keepdim)


@differentiable(autocast="fp32")
def _norm(x, p, axes, keepdim):
    kept, size = _kept(x.shape, axes), xp.abs(x)
    y = _in_range(lambda size: ((size**p).sum(axes, keepdims=True),), size)[0] ** (1 / p)

    def vjp(g):  # sign(0) is 0: at 0 there is no slope
        if p == 2:
            return _rounded(g.reshape(kept) * (x / xp.where(y == 0, 1, y)), x)
        ratio = xp.where(x == 0, 1, size) / xp.where(y == 0, 1, y)
        slope = xp.where(y == 0, 0, xp.sign_of(x) * ratio ** (p - 1))  # p < 0: flat if one is 0
        return _rounded(g.reshape(kept) * slope, x)

    return _rounded(y if keepdim else y.squeeze(axes), x), vjp


@with_axis
def norm(input, p="fro", dim=None, keepdim=False, dtype=None):
    """The vector norm (Σ |x|^p)^(1/p) over dim: p a number (0 counts), inf, -inf or "fro" (2)."""
    x = input if dtype is None else input.to(dtype)
    want_floating("norm", x)
    if isinstance(p, str) and p != "fro":
        raise ValueError(f"norm: p is a number or 'fro', not {p!r}: no singular values here")
    p = 2 if p == "fro" else p
    if p == 0:
        return sum((x != 0).to(x.dtype), dim, keepdim)
    if math.isinf(p):
        return (amax if p > 0 else amin)(x.abs(), dim, keepdim)
    return _norm(x, p, axes_of(dim, x.ndim), keepdim)


@differentiable(autocast="fp32")
def _logsumexp(x, axes, keepdim):
    top = xp.highest(x, axes, True)
    top = xp.where(xp.isfinite(top), top, 0)
    e = xp.exp(x - top)
    total = e.sum(axes, keepdims=True)
    with xp.errstate(divide="ignore"):  # of nothing, or of -inf alone: -inf
        y = xp.log(total) + top
    return y if keepdim else y.squeeze(axes), lambda g: g.reshape(y.shape) / total * e


@with_axis
def logsumexp(input, dim, keepdim=False):
    """log(Σ exp(x)) over dim, with the maximum taken off first."""
    x = input if is_floating(input.data) else input.float()
    return _logsumexp(x, axes_of(dim, x.ndim), keepdim)


@differentiable(autocast="fp32")
def _cumsum(x, axis):
    return x.cumsum(axis, x.dtype), lambda g: xp.flip(xp.flip(g, axis).cumsum(axis), axis)


@with_axis
def cumsum(input, dim, *, dtype=None):
    """Each element and all before it along dim, summed."""
    x, axes = input.to(_total_dtype(input, dtype)), axes_of((dim,), input.ndim)
    return _cumsum(x, axes[0]) if axes else x.clone()


@with_axis
def cumprod(input, dim, *, dtype=None):
    """Each element times all before it along dim (n² numbers on the way, for zeros' sake)."""
    if not axes_of((dim,), input.ndim):
        return input.prod(dim, dtype=dtype)
    rows = movedim(input, dim, -1).unsqueeze(-2)
    with xp.beside(input.data):
        before = Tensor(xp.tri(rows.shape[-1], dtype=bool))
    return movedim(where(before, rows, 1).prod(-1, dtype=dtype), -1, dim)


@with_axis
def count_nonzero(input, dim=None):
    return (input != 0).sum(dim)


def _beside_mean(spread):
    """(var or std, mean) over the same dimensions, with the arguments of var."""

    @with_axis
    def both(input, dim=None, unbiased=True, keepdim=False, *, correction=None):
        found = spread(input, dim, unbiased, keepdim, correction=correction)
        return found, mean(input, None if isinstance(dim, bool) else dim, keepdim)

    both.__name__, both.__doc__ = f"{spread.__name__}_mean", f"({spread.__name__}, mean)."
    return both


var_mean, std_mean = _beside_mean(var), _beside_mean(std)
