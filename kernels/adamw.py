"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019): one pass over memory, in tiles."""

import math

import numpy as np

from .descent import decayed, scratched


def naive(p, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled=True):
    """The formula, one temporary an operation; returns p, m, v."""
    if decoupled:
        p = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m = beta1 * m + (1 - beta1) * g
    v = beta2 * v + (1 - beta2) * g * g
    m_hat, v_hat = m / (1 - beta1**step), v / (1 - beta2**step)
    return p - lr * m_hat / (np.sqrt(v_hat) + eps), m, v


def step_(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decoupled: bool = True, highest: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Update parameters p and moments m and v in place; all contiguous, of one shape.

    `highest`, if given, holds the largest v so far and takes its place under the root (AMSGrad,
    Reddi et al. 2018). Twelve operations a tile: with r = sqrt(1 - β2ᵗ),
    m̂ / (sqrt(v̂) + eps) is m · r / (1 - β1ᵗ) / (sqrt(v) + eps · r).
    """
    root = math.sqrt(1 - beta2**step)
    scale, eps = lr * root / (1 - beta1**step), eps * root
    highest = v if highest is None else highest
    for pt, gt, mt, vt, ht, s, t in scratched(p, g, m, v, highest):
        if decoupled and weight_decay:
            pt *= 1 - lr * weight_decay
        else:
            gt = decayed(gt, pt, weight_decay, out=s)
        np.multiply(gt, 1 - beta1, out=t)
        mt *= beta1
        mt += t
        np.multiply(gt, gt, out=t)
        t *= 1 - beta2
        vt *= beta2
        vt += t
        if highest is not v:
            np.maximum(ht, vt, out=ht)
        np.sqrt(ht, out=t)
        t += eps
        np.divide(mt, t, out=t)
        t *= scale
        pt -= t
