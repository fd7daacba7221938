"""y = x Wᵀ + b: for many rows in blocks, so that the bias is added while the block is in cache."""

import numpy as np

from .product import MULTIPLICATIONS, product, turned

ROWS = 256
FEW = 64  # rows up to which the output's units serve a GEMM better as its rows


def forward(x: np.ndarray, weight: np.ndarray, bias: np.ndarray | None) -> np.ndarray:
    """x (n, in), weight (out, in), bias (out,) -> (n, out)."""
    y = np.empty((len(x), len(weight)), np.result_type(x, weight))
    if _few(x, weight):
        return np.add(np.matmul(weight, x.T).T, 0 if bias is None else bias, out=y)
    if bias is None:
        return np.matmul(x, weight.T, out=y)
    for start in range(0, len(x), ROWS):
        rows = slice(start, start + ROWS)
        np.matmul(x[rows], weight.T, out=y[rows])
        y[rows] += bias
    return y


def _few(x: np.ndarray, other: np.ndarray) -> bool:
    return 1 < len(x) <= FEW and len(x) * other.size > MULTIPLICATIONS


def backward_input(g: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """(n, out) -> (n, in)."""
    return product(g, weight)


def backward_weight(g: np.ndarray, x: np.ndarray) -> np.ndarray:
    """(n, out), (n, in) -> (out, in)."""
    return product(turned(g), x) if _few(g, x) else np.matmul(g.T, x)


def backward_bias(g: np.ndarray) -> np.ndarray:
    """(n, out) -> (out,)."""
    return g.sum(0)
