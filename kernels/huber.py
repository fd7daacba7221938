"""Huber's loss of differences d, quadratic near 0 and linear beyond delta (Huber 1964).

With c = d clipped to ±delta it is c · (d - c / 2), and its slope is c; both are divided by `scale`.
That is 1 for Huber's own loss, delta for the smooth L1 loss (Girshick 2015).

The ladder, n differences of b bytes: the formula moves 10nb bytes forward and 7nb backward; the
loop reads d and writes the loss, 2nb bytes, and backward g and d, 3nb bytes.
"""

from __future__ import annotations

from . import arrays as xp
from .dispatch import formula
from .loops import F, Out, helper, loop

# The formula


@formula
def forward(d: xp.ndarray, delta: float, scale: float) -> xp.ndarray:
    """The losses, of d's shape."""
    c = xp.clip(d, -delta, delta)
    return c / scale * (d - c / 2)


@formula
def backward(g: xp.ndarray, d: xp.ndarray, delta: float, scale: float) -> xp.ndarray:
    """The cotangent of d."""
    return g * (xp.clip(d, -delta, delta) / scale)


# The loop


@helper()
def clipped(d, delta):
    d = -delta if d < -delta else d
    return delta if d > delta else d  # NaN stays


@loop
def huber(d: F[::1], delta: float, scale: float, y: Out[::1]):
    for i in range(len(d)):
        c = clipped(d[i], delta)
        y[i] = c / scale * (d[i] - 0.5 * c)


@loop
def huber_slope(g: F[::1], d: F[::1], delta: float, scale: float, dd: Out[::1]):
    for i in range(len(d)):
        dd[i] = g[i] * (clipped(d[i], delta) / scale)


@forward.version("numba")
def _forward_loop(d, delta, scale):
    y = xp.empty_like(d, order="C")
    huber(xp.ascontiguousarray(d).reshape(-1), delta, scale, y.reshape(-1))
    return y


@backward.version("numba")
def _backward_loop(g, d, delta, scale):
    dd = xp.empty_like(d, order="C")
    g, d = (xp.ascontiguousarray(a).reshape(-1) for a in (g, d))
    huber_slope(g, d, delta, scale, dd.reshape(-1))
    return dd
