"""AdamW (Loshchilov & Hutter 2019, Algorithm 2): one pass over memory, tile by tile."""

import numpy as np

from .tiles import ELEMENTS, flat_tiles


def naive(p, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay):
    """The formula, one temporary an operation; returns p, m, v."""
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * weight_decay * p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def step_(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
) -> None:  # fmt: skip
    """Update parameters p and moments m and v in place; all contiguous, of one shape."""
    scale = lr / (1 - beta1**step)
    root = (1 - beta2**step) ** -0.5
    scratch = np.empty_like(p, shape=min(p.size, ELEMENTS))
    for pt, gt, mt, vt in flat_tiles(p, g, m, v):
        t = scratch[: pt.size]
        np.subtract(gt, mt, out=t)
        t *= 1 - beta1
        mt += t
        np.multiply(gt, gt, out=t)
        t -= vt
        t *= 1 - beta2
        vt += t
        np.sqrt(vt, out=t)
        t *= root
        t += eps
        np.divide(mt, t, out=t)
        t *= scale
        if weight_decay:
            pt *= 1 - lr * weight_decay
        pt -= t
