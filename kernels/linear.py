"""y = x Wᵀ + b, in blocks of rows so that the bias is added while the block is in cache."""

import numpy as np

ROWS = 256


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """x (n, in), weight (out, in), bias (out,) -> (n, out)."""
    y = np.empty((len(x), len(weight)), np.result_type(x, weight))
    if bias is None:
        return np.matmul(x, weight.T, out=y)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        np.matmul(x[rows], weight.T, out=y[rows])
        y[rows] += bias
    return y


def backward_input(g: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, out) -> (n, in)."""
    return np.matmul(g, weight)


def backward_weight(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n, out), (n, in) -> (out, in)."""
    return np.matmul(g.T, x)


def backward_bias(g: np.ndarray) -> np.ndarray:
    """(n, out) -> (out,)."""
    return g.sum(0)
