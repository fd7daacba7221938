"""Layer norm (Ba et al. 2016) over the last axis, a tile of rows at a time."""

import numpy as np

from .tiles import row_tiles


def naive(x, weight, bias, eps=1e-5):
    """The formula, one temporary an operation."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + eps) * weight + bias


def forward(
    x: np.ndarray, weight: np.ndarray | None, bias: np.ndarray | None, eps: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x (n, h) -> y (n, h), and for backward the mean (n, 1) and 1/deviation (n, 1)."""
    n, h = x.shape
    y, mean, rstd = np.empty_like(x), np.empty_like(x, shape=(n, 1)), np.empty_like(x, shape=(n, 1))
    for rows in row_tiles(n, h):
        yt = y[rows]
        np.mean(x[rows], axis=1, keepdims=True, out=mean[rows])
        np.subtract(x[rows], mean[rows], out=yt)
        variance = np.einsum("ij,ij->i", yt, yt)[:, None] / h
        np.divide(1, np.sqrt(variance + eps), out=rstd[rows])
        yt *= rstd[rows]
        if weight is not None:
            yt *= weight
        if bias is not None:
            yt += bias
    return y, mean, rstd


def backward(
    g: np.ndarray, x: np.ndarray, weight: np.ndarray | None, mean: np.ndarray, rstd: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cotangents of x (n, h), weight (h,) and bias (h,)."""
    n, h = x.shape
    dx, dw, db = np.empty_like(x), np.zeros_like(x, shape=h), np.zeros_like(x, shape=h)
    for rows in row_tiles(n, h):
        gt, dt = g[rows], dx[rows]
        normal = (x[rows] - mean[rows]) * rstd[rows]
        dw += np.einsum("ij,ij->j", gt, normal)
        db += gt.sum(0)
        if weight is not None:
            gt = gt * weight
        along = np.einsum("ij,ij->i", gt, normal)[:, None] / h
        np.subtract(gt, gt.mean(1, keepdims=True), out=dt)
        normal *= along
        dt -= normal
        dt *= rstd[rows]
    return dx, dw, db
