"""Group norm (Wu & He 2018): layer norm of each group of channels, weight and bias by channel.

The ladder, x (n, c, l) of b bytes a number:

- formula: layer norm (its fast version if there is one), and then whole arrays: forward moves
  4nclb bytes beside those of layer norm, backward 11nclb.
- loop: a group at a time, which stays in the cache: 2nclb bytes forward, 3nclb backward.

On a GPU the formula runs, with layer norm's tile program. Every version keeps 1/deviation and the
mean of each group for backward.
"""

from __future__ import annotations

import math

from . import arrays as xp
from . import layer_norm
from .batch_norm import product_and_sum
from .dispatch import formula
from .elementary import row_sum
from .layer_norm import square_distance
from .loops import F, Out, loop, real

# The formula


@formula
def forward(
    x: xp.ndarray, weight: xp.ndarray | None, bias: xp.ndarray | None, groups: int, eps: float
) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, c, l), weight and bias (c,) -> y (n, c, l) and stats (2, n · groups)."""
    y, stats = layer_norm.forward(_groups(x, groups), None, None, eps)
    y = y.reshape(x.shape)
    y = y if weight is None else y * weight[:, None]
    return y if bias is None else y + bias[:, None], stats


@formula
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, groups: int, stats: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """The cotangents of x, in g's shape if that is another, and of weight and bias (c,)."""
    shape, g = g.shape, g.reshape(x.shape)
    rows, (rstd, mean) = _groups(x, groups), stats[:, :, None]
    normal = ((rows - mean) * rstd).reshape(x.shape)
    u = g if weight is None else g * weight[:, None]
    dx, _, _ = layer_norm.backward(_groups(u, groups), rows, None, stats)
    return dx.reshape(shape), (g * normal).sum((0, 2)), g.sum((0, 2))


def _groups(x, groups):
    """(n, c, l) -> (n · groups, c / groups · l)."""
    n, c, length = x.shape
    return x.reshape(n * groups, c // groups * length)


# The loop


@loop
def group_norm_planes(
    x: F[:, :, ::1], w: F[::1], b: F[::1], groups: int, eps: float,
    y: Out[:, :, ::1], rstd: Out[::1], mean: Out[::1],
):  # fmt: skip
    n, c, length = x.shape
    size = c // groups
    count = max(real(size * length), 1.0)
    for row in range(n * groups):
        i, first = row // groups, row % groups * size
        total = 0.0
        squares = 0.0
        for j in range(first, first + size):
            total += row_sum(x[i, j])
        m = total / count
        for j in range(first, first + size):
            squares += square_distance(x[i, j], m)
        r = 1.0 / math.sqrt(squares / count + eps)
        mean[row], rstd[row] = m, r
        for j in range(first, first + size):
            scale, shift = w[j], b[j]
            for k in range(length):
                y[i, j, k] = (x[i, j, k] - m) * r * scale + shift


@loop
def group_norm_slopes(
    g: F[:, :, ::1], x: F[:, :, ::1], w: F[::1], groups: int, rstd: F[::1], mean: F[::1],
    dx: Out[:, :, ::1], dw: Out[::1], db: Out[::1],
):  # fmt: skip
    n, c, length = x.shape
    size = c // groups
    count = max(real(size * length), 1.0)
    dw[:], db[:] = 0.0, 0.0
    for row in range(n * groups):
        i, first = row // groups, row % groups * size
        m, r = mean[row], rstd[row]
        level = 0.0
        slope = 0.0
        for j in range(first, first + size):
            product, total = product_and_sum(g[i, j], x[i, j], m)
            dw[j] += product * r
            db[j] += total
            level += total * w[j] / count
            slope += product * w[j] / count * r * r
        for j in range(first, first + size):
            scale = w[j]
            for k in range(length):
                off = x[i, j, k] - m
                dx[i, j, k] = r * (g[i, j, k] * scale - level - off * slope)


@forward.version("numba")
def _forward_loop(x, weight, bias, groups, eps):
    x, (w, b) = xp.ascontiguousarray(x), layer_norm.affine(x, weight, bias)
    y, stats = xp.empty_like(x), xp.empty_like(x, order="C", shape=(2, len(x) * groups))
    group_norm_planes(x, w, b, groups, eps, y, *stats)
    return y, stats


@backward.version("numba")
def _backward_loop(g, x, weight, groups, stats):
    (w, _), c = layer_norm.affine(x, weight, None), x.shape[1]
    dx, sums = (xp.empty_like(x, order="C", shape=s) for s in (g.shape, (2, c)))
    g = xp.ascontiguousarray(g).reshape(x.shape)
    group_norm_slopes(g, x, w, groups, *stats, dx.reshape(x.shape), *sums)
    return dx, *sums
