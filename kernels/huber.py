"""Huber's loss of differences d, quadratic near 0 and linear beyond delta (Huber 1964).

With c = d clipped to ±delta it is c · (d - c / 2), and its slope is c; both are divided by `scale`.
That is 1 for Huber's own loss, delta for the smooth L1 loss (Girshick 2015).

The ladder, n differences of b bytes:

- formula: whole arrays, an operation at a time: 10nb bytes forward and 7nb backward.
- loop: forward reads d and writes the loss, 2nb bytes; backward reads g and d, 3nb bytes.
- tile program: made from the loop's text (each_triton.py), the same bytes.
"""

from __future__ import annotations

from . import arrays as xp
from .each import each
from .loops import helper


@helper()
def clipped(d, delta):
    d = -delta if d < -delta else d
    return delta if d > delta else d  # NaN stays


@each
def forward(d, delta, scale):
    """The losses, of d's shape."""
    c = xp.clip(d, -delta, delta)
    return c / scale * (d - c / 2)


@forward.of
def huber_of(d, delta: float, scale: float):
    c = clipped(d, delta)
    return c / scale * (d - 0.5 * c)


@each
def backward(g, d, delta, scale):
    """The cotangent of d."""
    return g * (xp.clip(d, -delta, delta) / scale)


@backward.of
def huber_slope_of(g, d, delta: float, scale: float):
    return g * (clipped(d, delta) / scale)
