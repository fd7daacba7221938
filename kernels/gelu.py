"""GELU (Hendrycks & Gimpel 2016), exact and by tanh, tile by tile.

Naively each of the ten passes of the tanh form streams the array through memory; here all passes
over one tile run while it is in cache, and the tile's tanh is kept for backward.
"""

import math

import numpy as np

from .erf import erf
from .tiles import ELEMENTS, flat_tiles

C = math.sqrt(2 / math.pi)
K = 0.044715


def naive(x: np.ndarray, approximate: str = "none") -> np.ndarray:
    """The formula, one temporary an operation."""
    if approximate == "tanh":
        return 0.5 * x * (1 + np.tanh(C * (x + K * x**3)))
    return 0.5 * x * (1 + erf(x / math.sqrt(2)))


def forward(x: np.ndarray, approximate: str = "none") -> tuple[np.ndarray, np.ndarray]:
    """gelu(x), and its tanh (or erf) for backward."""
    x = np.asarray(x, order="C")  # np.ascontiguousarray would make 1-d of 0-d
    y, saved = np.empty_like(x), np.empty_like(x)
    for xt, yt, st in flat_tiles(x, y, saved):
        if approximate == "tanh":
            np.multiply(xt, xt, out=st)
            st *= C * K
            st += C
            st *= xt
            np.tanh(st, out=st)
        else:
            st[:] = erf(xt * math.sqrt(0.5))
        np.add(st, 1, out=yt)
        yt *= xt
        yt *= 0.5
    return y, saved


def backward(
    g: np.ndarray, x: np.ndarray, saved: np.ndarray, approximate: str = "none"
) -> np.ndarray:
    """g · d gelu/dx."""
    g, x = np.asarray(g, order="C"), np.asarray(x, order="C")
    dx, scratch = np.empty_like(x), np.empty_like(x, shape=min(x.size, ELEMENTS))
    for gt, xt, st, dt in flat_tiles(g, x, saved, dx):
        slope = _slope_tanh if approximate == "tanh" else _slope_exact
        slope(xt, st, dt, scratch[: dt.size])
        dt += st
        dt += 1
        dt *= 0.5
        dt *= gt
    return dx


def _slope_tanh(x, tanh, out, scratch):
    """x · d tanh(u)/dx, where u = C(x + Kx³)."""
    np.multiply(x, x, out=out)
    out *= 3 * C * K
    out += C
    np.multiply(tanh, tanh, out=scratch)
    np.subtract(1, scratch, out=scratch)
    out *= scratch  # before x: x³ may overflow, and inf · 0 is NaN
    out *= x


def _slope_exact(x, erf_, out, scratch):
    """x · d erf(x/√2)/dx = x · √(2/π) · exp(-x²/2)."""
    np.multiply(x, x, out=out)
    out *= -0.5
    np.exp(out, out=out)
    out *= C
    out *= x
