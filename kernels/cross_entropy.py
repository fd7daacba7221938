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


def check(
    name: str, shape: tuple, target: np.ndarray, weight: np.ndarray | None, ignore_index: int
) -> tuple[np.ndarray, np.ndarray]:
    """Flat classes (0 where ignored) and True where they count, of logits (n, C, …) or (C,)."""
    want, count = (shape[:1] + shape[2:], shape[1]) if len(shape) > 1 else ((), (*shape, 0)[0])
    if target.shape != want or not shape:
        kind = ValueError if len(shape) == 2 and target.ndim == 1 else RuntimeError
        raise kind(f"{name}: input {shape} and target {target.shape}: want (n, C, …) and (n, …)")
    if target.dtype.kind not in "iu":
        raise RuntimeError(f"{name}: targets are class numbers, not {target.dtype.name}")
    if weight is not None and weight.shape != (count,):
        raise RuntimeError(f"{name}: weight {weight.shape} for {count} classes: want one for each")
    target = target.reshape(-1)
    keep = target != ignore_index
    target = target if keep.all() else np.where(keep, target, 0)
    if keep.any() and not (target.min() >= 0 and target.max() < count):
        raise IndexError(
            f"{name}: targets from {target.min()} to {target.max()} for {count} classes"
        )
    return target, keep


def one_hot(target: np.ndarray, values: np.ndarray, classes: int) -> np.ndarray:
    """values (n,) each at its target, zeros elsewhere: (n, classes)."""
    whole = np.zeros_like(values, shape=(len(target), classes))
    whole[np.arange(len(target)), target] = values
    return whole


def smoothed(target: np.ndarray, keep: np.ndarray, weight: np.ndarray, part: float) -> np.ndarray:
    """One-hot targets, of which `part` is spread over all classes, times the weight (C,)."""
    q = one_hot(target, np.full_like(weight, 1 - part, shape=len(target)), len(weight))
    q += part / len(weight)
    q *= weight
    q *= keep[:, None]
    return q


def soft_naive(logits: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Against weights q (n, V) of all classes: Σ q · -log softmax."""
    e = np.exp(logits - logits.max(1, keepdims=True))
    return -(q * np.log(e / e.sum(1, keepdims=True))).sum(1)


def soft_forward(logits: np.ndarray, q: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """logits and q (n, V) -> losses (n,), and log-sum-exp (n, 1) for backward."""
    n, v = logits.shape
    loss, lse = np.empty_like(logits, shape=n), np.empty_like(logits, shape=(n, 1))
    for rows in row_tiles(n, v):
        top = logits[rows].max(1, keepdims=True, initial=-np.inf)
        lse[rows] = top + np.log(np.exp(logits[rows] - top).sum(1, keepdims=True))
        loss[rows] = np.vecdot(q[rows], lse[rows] - logits[rows])
    return loss, lse


def soft_backward(g: np.ndarray, logits: np.ndarray, q: np.ndarray, lse: np.ndarray) -> np.ndarray:
    """Cotangent of the logits: (softmax · Σ q - q) · g, with g (n,)."""
    dlogits = np.empty_like(logits)
    for rows in row_tiles(*logits.shape):
        dt = np.subtract(logits[rows], lse[rows], out=dlogits[rows])
        np.exp(dt, out=dt)
        dt *= q[rows].sum(1, keepdims=True)
        dt -= q[rows]
        dt *= g[rows, None]
    return dlogits


def soft_backward_target(g: np.ndarray, logits: np.ndarray, lse: np.ndarray) -> np.ndarray:
    """Cotangent of q: -log softmax · g."""
    return (lse - logits) * g[:, None]
