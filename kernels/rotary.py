"""Rotary position embedding (Su et al. 2021, RoFormer, 3.2.2): pairs of features turned by angles.

Two layouts of the pairs are in use: interleaved (0, 1), (2, 3), …, as in the paper, and half-split
(0, d/2), (1, d/2 + 1), …, as in GPT-NeoX and Llama checkpoints. An interleaved pair lies in memory
as a complex number does, and turning it is one complex product.
"""

import numpy as np


def naive(x: np.ndarray, angles: np.ndarray, interleaved: bool) -> np.ndarray:
    """The formula, pair by pair: x (..., s, d), angles (..., s, d/2)."""
    half, y = x.shape[-1] // 2, np.empty_like(x)
    for i in range(half):
        j, k = (2 * i, 2 * i + 1) if interleaved else (i, half + i)
        cos, sin = np.cos(angles[..., i]), np.sin(angles[..., i])
        y[..., j] = x[..., j] * cos - x[..., k] * sin
        y[..., k] = x[..., j] * sin + x[..., k] * cos
    return y


def angles(positions: np.ndarray, d: int, base: float) -> np.ndarray:
    """position · base^(-2i/d) for i = 0 .. d/2 - 1: (...) -> (..., d/2), in float64."""
    return positions[..., None] * base ** (-np.arange(0, d, 2) / d)


def rotate(x: np.ndarray, turn: np.ndarray, interleaved: bool) -> np.ndarray:
    """x (..., s, d), turn = exp(i · angles) (..., s, d/2) -> (..., s, d); conj turns back."""
    if interleaved:
        pairs = np.ascontiguousarray(x).view(turn.dtype)
        return np.multiply(pairs, turn).view(x.dtype)
    y, half = np.empty_like(x, order="C"), x.shape[-1] // 2
    cos, sin = turn.real.copy(), turn.imag.copy()  # of a complex array they are strided views
    a, b, ya, yb = x[..., :half], x[..., half:], y[..., :half], y[..., half:]
    np.multiply(a, cos, out=ya)
    ya -= b * sin
    np.multiply(a, sin, out=yb)
    yb += b * cos
    return y
