"""The norm of many arrays, taken as one long vector."""

import math
from collections.abc import Iterable

import numpy as np

BLOCK = 1 << 14


def naive(arrays: Iterable[np.ndarray], p: float) -> float:
    """One vector in float64, and NumPy's norm."""
    return float(np.linalg.norm(np.concatenate([a.ravel() for a in arrays]).astype(float), p))


def vector_norm(arrays: Iterable[np.ndarray], p: float) -> float:
    """(Σ |x|ᵖ)^(1/p), p > 0; for p = inf the largest |x|.

    The blocks of an array are summed in float64, exactly: no rounding grows with the size.
    """
    flat = [a.reshape(-1) for a in arrays]
    blocks = (a[i : i + BLOCK] for a in flat for i in range(0, a.size, BLOCK))
    if p == math.inf:
        return float(np.max([np.abs(b).max() for b in blocks], initial=0))  # max() may drop a nan
    if p == 2:
        return math.sqrt(math.fsum(float(np.dot(b, b)) for b in blocks))
    with np.errstate(over="ignore"):
        return math.fsum(float((np.abs(b).astype(float) ** p).sum()) for b in blocks) ** (1 / p)
