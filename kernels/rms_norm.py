"""RMS norm (Zhang & Sennrich 2019) over the last axis: x / sqrt(mean(x²) + eps) · w.

The ladder and its memory traffic are layer_norm's, without a mean and a bias: the formula moves
7nhb bytes forward and 19nhb backward, the loop and the tile program 2nhb and 3nhb.

Every version keeps 1/root of the mean square of each row for backward.
"""

from __future__ import annotations

import math

from . import arrays as xp
from . import norm_triton
from .dispatch import formula
from .elementary import ROWS, row_dot
from .loops import F, Out, helper, loop, real

# The formula


@formula
def forward(x: xp.ndarray, weight: xp.ndarray | None, eps: float) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, h) -> y (n, h), and 1/root of the mean square of each row (n,)."""
    rstd = 1 / xp.sqrt(xp.square(x).sum(1) / max(x.shape[1], 1) + eps)  # rows may be empty
    y = x * rstd[:, None]
    return y if weight is None else y * weight, rstd


@formula
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, rstd: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray]:
    """The cotangents of x (n, h), in g's shape if that is another, and of weight (h,).

    With u = g · w and normal = x · rstd, dx = rstd · (u - normal · mean(u · normal)).
    """
    shape, g, rstd = g.shape, g.reshape(x.shape), rstd[:, None]
    normal = x * rstd
    u = g if weight is None else g * weight
    dx = u - normal * ((u * normal).sum(1, keepdims=True) / max(x.shape[1], 1))
    return (dx * rstd).reshape(shape), (g * normal).sum(0)


# The loop


@loop
def rms_norm_rows(x: F[:, ::1], w: F[::1], eps: float, y: Out[:, ::1], rstd: Out[::1]):
    n, h = x.shape
    for i in range(n):
        rstd[i] = 1.0 / math.sqrt(row_dot(x[i], x[i]) / real(h) + eps)
        r = rstd[i]
        for j in range(h):
            y[i, j] = x[i, j] * r * w[j]


@helper(sums=True)
def weighted_dot(g, w, x):
    """Σ g·w·x."""
    total = 0.0
    for j in range(len(x)):
        total += g[j] * w[j] * x[j]
    return total


@loop
def rms_norm_slope_rows(
    g: F[:, ::1], x: F[:, ::1], w: F[::1], rstd: F[::1],
    dx: Out[:, ::1], part: Out[::1], dw: Out[::1],
):  # fmt: skip
    # part (h,): the sum of up to ROWS rows
    n, h = x.shape
    dw[:] = 0.0
    for start in range(0, n, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, n)):
            r = rstd[i]
            slope = weighted_dot(g[i], w, x[i]) / real(h) * r * r
            for j in range(h):
                dx[i, j] = r * (g[i, j] * w[j] - x[i, j] * slope)
                part[j] += g[i, j] * (x[i, j] * r)
        for j in range(h):
            dw[j] += part[j]


@forward.version("numba")
def _forward_loop(x, weight, eps):
    x = xp.ascontiguousarray(x)
    y, rstd = xp.empty_like(x), xp.empty_like(x, shape=len(x))
    rms_norm_rows(x, _weight(x, weight), eps, y, rstd)
    return y, rstd


@backward.version("numba")
def _backward_loop(g, x, weight, rstd):
    dx, sums = (xp.empty_like(x, order="C", shape=s) for s in (g.shape, (2, x.shape[1])))
    g = xp.ascontiguousarray(g).reshape(x.shape)
    rms_norm_slope_rows(g, x, _weight(x, weight), rstd, dx.reshape(x.shape), *sums)
    return dx, sums[1]


def _weight(x, weight):
    """The weight, or ones."""
    return xp.ones_like(x, shape=x.shape[1]) if weight is None else xp.ascontiguousarray(weight)


# The tile program


@forward.version("triton")
def _forward_triton(x, weight, eps):
    if not x.size:
        return forward.plain(x)(x, weight, eps)
    return norm_triton.forward(x, weight, None, eps, centred=False)


@backward.version("triton")
def _backward_triton(g, x, weight, rstd):
    if not x.size:
        return backward.plain(g)(g, x, weight, rstd)
    dx, (dw,) = norm_triton.backward(g, x, weight, rstd, centred=False)
    return dx, dw
