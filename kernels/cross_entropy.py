"""Softmax cross-entropy fused with the gradient of its logits, a tile of rows at a time.

Forward keeps exp(logits - max) and its sums, so backward needs no second exponential and the
logits themselves may be freed.
"""

import numpy as np

from .tiles import row_tiles


def naive(logits: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The formula: log-sum-exp minus the target's logit."""
    top = logits.max(1, keepdims=True)
    lse = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    return lse - logits[np.arange(len(target)), target]


def forward(logits: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """logits (n, V), target (n,) in [0, V) -> losses (n,); exponentials (n, V), their sums (n,)."""
    n, v = logits.shape
    e, total = np.empty_like(logits), np.empty_like(logits, shape=n)
    loss = np.empty_like(total)
    for rows in row_tiles(n, v):
        lt, et = logits[rows], e[rows]
        top = lt.max(1, keepdims=True)
        np.subtract(lt, top, out=et)
        loss[rows] = et[np.arange(len(et)), target[rows]]
        np.exp(et, out=et)
        et.sum(1, out=total[rows])
    return np.subtract(np.log(total), loss, out=loss), e, total


def backward(g: np.ndarray, e: np.ndarray, total: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Cotangent of the logits: (softmax - one_hot(target)) · g, with g (n,)."""
    dlogits = np.empty_like(e)
    for rows in row_tiles(*e.shape):
        np.multiply(e[rows], (g[rows] / total[rows])[:, None], out=dlogits[rows])
    dlogits[np.arange(len(target)), target] -= g
    return dlogits
