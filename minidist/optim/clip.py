"""Gradient clipping by global norm."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from ..tensor import Tensor


def squared_norm(array: np.ndarray, block: int = 1 << 14) -> float:
    """Σ x², each block by BLAS and the blocks in float64: no block's rounding grows with size."""
    flat = array.reshape(-1)
    parts = (flat[i : i + block] for i in range(0, flat.size, block))
    return math.fsum(float(np.dot(part, part)) for part in parts)


def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float) -> float:
    """Scale all gradients so that their global norm is at most max_norm; returns it before.

    Pascanu et al. 2013. A norm that is not finite leaves the gradients as they are.
    """
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    grads = [p.grad.data for p in parameters if p.grad is not None]
    norm = math.sqrt(math.fsum(map(squared_norm, grads)))
    if max_norm < norm < math.inf:
        for g in grads:
            g *= max_norm / (norm + 1e-6)
    return norm
