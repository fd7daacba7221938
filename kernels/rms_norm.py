"""RMS norm (Zhang & Sennrich 2019) over the last axis, a tile of rows at a time."""

import numpy as np

from .tiles import row_tiles


def naive(x, weight, eps):
    """The formula: x (n, h), weight (h,)."""
    return x / np.sqrt((x * x).mean(1, keepdims=True) + eps) * weight


def forward(x: np.ndarray, weight: np.ndarray | None, eps: float) -> tuple[np.ndarray, np.ndarray]:
    """x (n, h) -> y (n, h), and 1/root of the mean square (n, 1) for backward."""
    n, h = x.shape
    y, scale = np.empty_like(x), np.empty_like(x, shape=(n, 1))
    for rows in row_tiles(n, h):
        square = np.vecdot(x[rows], x[rows])[:, None] / max(h, 1)
        np.divide(1, np.sqrt(square + eps), out=scale[rows])
        np.multiply(x[rows], scale[rows], out=y[rows])
        if weight is not None:
            y[rows] *= weight
    return y, scale


def backward(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray | None, scale: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of x (n, h) and weight (h,)."""
    n, h = x.shape
    dx, dw, ones = np.empty_like(x), np.zeros_like(x, shape=h), np.ones_like(x, shape=n)
    for rows in row_tiles(n, h):
        gt, dt = g[rows], dx[rows]
        normal = x[rows] * scale[rows]
        np.multiply(gt, normal, out=dt)
        dw += np.matmul(ones[: len(dt)], dt)
        gt = gt if weight is None else gt * weight
        normal *= (np.vecdot(gt, normal) / max(h, 1))[:, None]
        np.subtract(gt, normal, out=dt)
        dt *= scale[rows]
    return dx, dw
