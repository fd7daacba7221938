"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019): one pass over memory, in tiles.

The ladder: naive, each operation streams its arrays through memory; in NumPy, all passes over one
tile run while it is in cache; in Triton, over one block while it is in registers. Memory traffic
of the last: p, g, m and v are read, p, m and v are written, 7 arrays (with AMSGrad 9); there is
nothing to go back through. The gradient may be of 16 bits beside parameters and moments of 32.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as np
from .descent import decayed, scratched
from .dispatch import dispatched
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # elements a program: 8 a thread, so two loads of 16 bytes of each array in flight


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


@dispatched
def step_(
    p: np.ndarray, g: np.ndarray, m: np.ndarray, v: np.ndarray, *,
    step: int, lr: float, beta1: float, beta2: float, eps: float, weight_decay: float,
    decoupled: bool = True, highest: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Update parameters p and moments m and v in place; all contiguous, of one shape.

    `highest`, if given, holds the largest v so far and takes its place under the root (AMSGrad,
    Reddi et al. 2018). With r = sqrt(1 - β2ᵗ), m̂ / (sqrt(v̂) + eps) is
    m · r / (1 - β1ᵗ) / (sqrt(v) + eps · r). That is twelve passes over a tile, of which the root
    takes a quarter of the time, and a thirteenth for weight decay (two if it is not decoupled).
    """
    root = math.sqrt(1 - beta2**step)
    scale, eps = lr * root / (1 - beta1**step), eps * root
    highest = v if highest is None else highest
    for pt, gt, mt, vt, ht, s, t in scratched(p, g, m, v, highest):
        if decoupled and weight_decay:
            pt *= 1 - lr * weight_decay
        else:
            gt = decayed(gt, pt, weight_decay, out=s)
        if gt.dtype != s.dtype:  # products of 16 bits would be rounded to 16 bits, and overflow
            s[...] = gt
            gt = s
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


@step_.version("naive")
def _step_naive(
    p, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled=True, highest=None
):
    g = g.astype(p.dtype)
    if highest is None:
        p[...], m[...], v[...] = naive(
            p, g, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, decoupled=decoupled,
        )  # fmt: skip
        return
    if decoupled:
        p[...] = p - lr * weight_decay * p
    else:
        g = g + weight_decay * p
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    highest[...] = np.maximum(highest, v)
    m_hat, v_hat = m / (1 - beta1**step), highest / (1 - beta2**step)
    p[...] = p - lr * m_hat / (np.sqrt(v_hat) + eps)


# The same on a GPU: a block of elements a program


@triton_kernel
def _adam_kernel(
    p_ptr, g_ptr, m_ptr, v_ptr, highest_ptr, n, scale, beta1, beta2, rest1, rest2, eps, decay,
    DECOUPLED: tl.constexpr, AMSGRAD: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """decay is what p is multiplied by, or, not decoupled, what times p is added to g."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    p = tl.load(p_ptr + at, inside)
    g = tl.load(g_ptr + at, inside).to(tl.float32)
    m = tl.load(m_ptr + at, inside)
    v = tl.load(v_ptr + at, inside, other=1.0)  # a root other than 0 where there is nothing
    if DECOUPLED:
        p *= decay
    else:
        g += decay * p
    m = beta1 * m + rest1 * g
    v = beta2 * v + rest2 * g * g
    tl.store(m_ptr + at, m, inside)
    tl.store(v_ptr + at, v, inside)
    if AMSGRAD:
        v = tl.maximum(tl.load(highest_ptr + at, inside, other=1.0), v)
        tl.store(highest_ptr + at, v, inside)
    tl.store(p_ptr + at, p - scale * (m / (tl.sqrt(v) + eps)), inside)


@step_.version("triton")
def _step_triton(
    p, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled=True, highest=None
):
    if not _served(p, g, m, v, highest):
        step_.plain(p)(
            p, g, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, decoupled=decoupled, highest=highest,
        )  # fmt: skip
        return
    root = math.sqrt(1 - beta2**step)
    _adam_kernel[(-(-p.size // BLOCK),)](
        p, g, m, v, v if highest is None else highest, p.size,
        lr * root / (1 - beta1**step), beta1, beta2, 1 - beta1, 1 - beta2, eps * root,
        1 - lr * weight_decay if decoupled else weight_decay,
        DECOUPLED=decoupled, AMSGRAD=highest is not None, BLOCK=BLOCK,
    )  # fmt: skip


def _served(p, g, *memory):
    """Whether the kernel does: numbers reach a kernel in 32 bits, so it is not for float64."""
    wide = [p, *(a for a in memory if a is not None)]
    assert all(a.flags.c_contiguous and a.shape == p.shape for a in (g, *wide))
    served = "float32", "float16", "uint16"  # gradients; what is kept is of 32 bits
    return g.dtype.name in served and all(a.dtype == np.float32 for a in wide)
