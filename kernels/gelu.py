"""GELU (Hendrycks & Gimpel 2016), exact and by tanh, tile by tile.

Naively each pass streams the array through memory; here all passes over one tile run while it is
in cache. Value and slope share the distribution function, so forward works out both and keeps the
slope: backward is one product, and neither needs the input any more.
"""

import math

import numpy as np

from .erf import erf
from .tiles import flat_tiles

C = math.sqrt(2 / math.pi)
K = 0.044715


def naive(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """The formula, one temporary an operation."""
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(C * (x + K * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def forward(x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """x · Φ(x), and its slope for backward."""
    x = np.asarray(x, order="C")  # np.ascontiguousarray would make 1-d of 0-d
    y, slope = np.empty_like(x), np.empty_like(x)
    form = _by_tanh if approximate == "tanh" else _exact
    for xt, yt, st in flat_tiles(x, y, slope):
        half = np.empty_like(xt)
        form(xt, half, yt, st)
        np.multiply(half, xt, out=yt)
        st += half
    return y, slope


def backward(g: np.ndarray, slope: np.ndarray) -> np.ndarray:
    """g · d gelu/dx."""
    return g * slope


def _exact(x, half, scratch, rest):
    """half = Φ(x); rest = x · φ(x), φ the normal density."""
    erf(x, out=half, scale=math.sqrt(0.5))
    half *= 0.5
    half += 0.5
    np.multiply(x, x, out=rest)
    rest *= -0.5
    np.exp(rest, out=rest)
    rest *= C / 2
    rest *= x


def _by_tanh(x, half, scratch, rest):
    """With u = C(x + Kx³): half = (1 + tanh u) / 2; rest = x · d half/dx."""
    square = np.multiply(x, x, out=scratch)
    np.multiply(square, C * K, out=half)
    half += C
    half *= x
    np.tanh(half, out=half)
    half *= 0.5
    half += 0.5
    np.subtract(1, half, out=rest)
    rest *= half  # half the slope of tanh; before x: x³ may overflow, and inf · 0 is NaN
    square *= 6 * C * K
    square += 2 * C
    rest *= square
    rest *= x
