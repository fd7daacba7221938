"""Layer norm (Ba et al. 2016) over the last axis: (x - mean) / sqrt(variance + eps) · w + b.

The ladder, x (n, h) of b bytes a number:

- formula: whole arrays, an operation at a time: forward moves 14nhb bytes, backward 22nhb.
- loop: a row at a time, which stays in the cache between its passes (mean, variance, result).
  Forward reads x and writes y, 2nhb bytes; backward reads g and x and writes dx, 3nhb bytes. It
  adds the cotangents of w and b on the way, in two rows that stay in the cache too.
- tile program: rows in registers, the same bytes. Rows too wide for registers are read twice
  forward and three times backward.

Every version keeps the mean and 1/deviation of each row for backward.
"""

from __future__ import annotations

import math

from . import arrays as xp
from . import norm_triton
from .dispatch import formula
from .elementary import ROWS, row_sum
from .loops import F, Out, helper, loop, real

# The formula


@formula
def forward(
    x: xp.ndarray, weight: xp.ndarray | None, bias: xp.ndarray | None, eps: float = 1e-5
) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, h) -> y (n, h) and stats (2, n): 1/deviation and mean of each row."""
    h = max(x.shape[1], 1)  # rows may be empty
    mean = x.sum(1) / h
    rstd = 1 / xp.sqrt(xp.square(x - mean[:, None]).sum(1) / h + eps)
    y = (x - mean[:, None]) * rstd[:, None]
    y = y if weight is None else y * weight
    return y if bias is None else y + bias, xp.stack([rstd, mean])


@formula
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, stats: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """The cotangents of x (n, h), in g's shape if that is another, and of weight and bias (h,).

    With u = g · w and normal = (x - mean) · rstd,
    dx = rstd · (u - mean(u) - normal · mean(u · normal)).
    """
    shape, g = g.shape, g.reshape(x.shape)
    rstd, mean = stats[:, :, None]
    normal = (x - mean) * rstd
    u = g if weight is None else g * weight
    share = 1 / max(x.shape[1], 1)
    dx = u - u.sum(1, keepdims=True) * share - normal * (u * normal).sum(1, keepdims=True) * share
    return (dx * rstd).reshape(shape), (g * normal).sum(0), g.sum(0)


# The loop


@helper(sums=True)
def square_distance(x, mean):
    """Σ (x - mean)²."""
    total = 0.0
    for j in range(len(x)):
        total += (x[j] - mean) * (x[j] - mean)
    return total


@loop
def layer_norm_rows(
    x: F[:, ::1], w: F[::1], b: F[::1], eps: float, y: Out[:, ::1], rstd: Out[::1], mean: Out[::1]
):  # fmt: skip
    n, h = x.shape
    for i in range(n):
        mean[i] = row_sum(x[i]) / real(h)
        rstd[i] = 1.0 / math.sqrt(square_distance(x[i], mean[i]) / real(h) + eps)
        m, r = mean[i], rstd[i]
        for j in range(h):
            y[i, j] = (x[i, j] - m) * r * w[j] + b[j]


@helper(sums=True)
def weighted_sums(g, w, x, mean):
    """Σ g·w and Σ g·w·(x - mean)."""
    total = 0.0
    product = 0.0
    for j in range(len(x)):
        u = g[j] * w[j]
        total += u
        product += u * (x[j] - mean)
    return total, product


@loop
def layer_norm_slope_rows(
    g: F[:, ::1], x: F[:, ::1], w: F[::1], rstd: F[::1], mean: F[::1],
    dx: Out[:, ::1], part: Out[:, ::1], dw: Out[::1], db: Out[::1],
):  # fmt: skip
    # part (2, h): the sums of up to ROWS rows
    n, h = x.shape
    dw[:], db[:] = 0.0, 0.0
    for start in range(0, n, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, n)):
            r, m = rstd[i], mean[i]
            total, product = weighted_sums(g[i], w, x[i], m)
            level, slope = total / real(h), product / real(h) * r * r
            for j in range(h):
                off = x[i, j] - m
                dx[i, j] = r * (g[i, j] * w[j] - level - off * slope)
                part[0, j] += g[i, j] * (off * r)
                part[1, j] += g[i, j]
        for j in range(h):
            dw[j] += part[0, j]
            db[j] += part[1, j]


@forward.version("numba")
def _forward_loop(x, weight, bias, eps=1e-5):
    x, (w, b) = xp.ascontiguousarray(x), affine(x, weight, bias)
    y, stats = xp.empty_like(x), xp.empty_like(x, order="C", shape=(2, len(x)))
    layer_norm_rows(x, w, b, eps, y, *stats)
    return y, stats


@backward.version("numba")
def _backward_loop(g, x, weight, stats):
    (w, _), h = affine(x, weight, None), x.shape[1]
    dx, sums = (xp.empty_like(x, order="C", shape=s) for s in (g.shape, (4, h)))
    g = xp.ascontiguousarray(g).reshape(x.shape)
    layer_norm_slope_rows(g, x, w, *stats, dx.reshape(x.shape), sums[:2], *sums[2:])
    return dx, *sums[2:]


def affine(x, weight, bias):
    """Weight and bias of x (n, h) or (n, h, …), or ones and zeros."""
    h = x.shape[1]
    return (
        xp.ones_like(x, shape=h) if weight is None else xp.ascontiguousarray(weight),
        xp.zeros_like(x, shape=h) if bias is None else xp.ascontiguousarray(bias),
    )


# The tile program


@forward.version("triton")
def _forward_triton(x, weight, bias, eps=1e-5):
    if not x.size:
        return forward.plain(x)(x, weight, bias, eps)
    y, stats = norm_triton.forward(x, weight, bias, eps, centred=True)
    return y, stats


@backward.version("triton")
def _backward_triton(g, x, weight, stats):
    if not x.size:
        return backward.plain(g)(g, x, weight, stats)
    dx, sums = norm_triton.backward(g, x, weight, stats, centred=True)
    return dx, *sums
