"""Adam (Kingma & Ba 2015) and AdamW (Loshchilov & Hutter 2019): a step of one array of parameters.

The ladder, n parameters of b bytes:

- formula: whole arrays, an operation at a time. AdamW moves 39nb bytes.
- loop: all of a parameter's numbers are in registers at once. p, g, m and v are read, p, m and v
  are written: 7nb bytes, with AMSGrad 9nb.
- tile program: the same, and the same bytes, for a block of parameters a program.

The bias corrections 1 - βᵗ are the same for all parameters: with r = sqrt(1 - β2ᵗ),
lr · m̂ / (sqrt(v̂) + eps) is lr · r / (1 - β1ᵗ) · m / (sqrt(v) + eps · r). So loop and tile program
take three numbers that are computed once a step: the scale of m / (…), eps · r, and the decay.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from .descent import decayed, rows, served, with_decay
from .dispatch import formula
from .half_precision import as_dtype
from .launch import triton_kernel
from .loops import F, Out, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # elements a program: 8 a thread, so two loads of 16 bytes of each array in flight


# The formula


@formula
def step_(
    p: xp.ndarray, g: xp.ndarray, m: xp.ndarray, v: xp.ndarray, *,
    step: int | xp.ndarray, lr: float | xp.ndarray, beta1: float, beta2: float, eps: float,
    weight_decay: float, decoupled: bool = True, highest: xp.ndarray | None = None,
) -> None:  # fmt: skip
    """Update parameters p and moments m and v in place; all contiguous, of one shape.

    The gradient g may be of 16 bits beside parameters of 32. `highest`, if given, holds the largest
    v so far and takes its place under the root (AMSGrad, Reddi et al. 2018). `step` is the number
    of this step; or an array () that holds the number of those before, is counted up, and lies
    beside p (a step that is captured in a CUDA graph then counts on when it is replayed). Then lr
    may be an array () there too.
    """
    if isinstance(step, xp.ndarray):
        step += 1
    if isinstance(lr, xp.ndarray):
        lr = lr.astype(xp.float64)
    g = as_dtype(g, p.dtype)  # squares of 16 bits would overflow
    if decoupled:
        p *= 1 - lr * weight_decay
    else:
        g = decayed(g, p, weight_decay)
    m[...] = beta1 * m + (1 - beta1) * g
    v[...] = beta2 * v + (1 - beta2) * g * g
    if highest is not None:
        xp.maximum(highest, v, out=highest)
    m_hat = m / (1 - beta1**step)
    v_hat = (v if highest is None else highest) / (1 - beta2**step)
    p -= lr * m_hat / (xp.sqrt(v_hat) + eps)


# The loop


@helper()
def larger(a, b):
    """The larger of two numbers; NaN if one of them is."""
    return a if a >= b or a != a else b


@loop
def adam(
    p: Out[::1], g: F[::1], m: Out[::1], v: Out[::1], highest: Out[::1], scale: float,
    beta1: float, beta2: float, rest1: float, rest2: float, eps: float, decay: float,
    decoupled: bool, amsgrad: bool,
):  # fmt: skip
    """decay is what p is multiplied by; or, not decoupled, what times p is added to g."""
    for i in range(len(p)):
        old, slope = p[i], g[i]
        if decoupled:
            old *= decay
        else:
            slope = with_decay(slope, old, decay)
        first = beta1 * m[i] + rest1 * slope
        second = beta2 * v[i] + rest2 * slope * slope
        m[i], v[i] = first, second
        if amsgrad:
            second = larger(highest[i], second)
            highest[i] = second
        p[i] = old - scale * (first / (math.sqrt(second) + eps))


@step_.version("numba")
def _step_loop(
    p, g, m, v, *, step, lr, beta1, beta2, eps, weight_decay, decoupled=True, highest=None
):
    scale, eps, decay = _factors(p, step, lr, beta1, beta2, eps, weight_decay, decoupled)
    amsgrad = highest is not None
    for arrays in rows(p, g, m, v, highest):
        adam(
            *arrays, scale, beta1, beta2, 1 - beta1, 1 - beta2, eps, decay, decoupled, amsgrad
        )  # fmt: skip


def _factors(p, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """The scale of m / (sqrt(v) + ·), what is added to that root, and the decay (see adam)."""
    if isinstance(step, xp.ndarray):
        return _counted(p, step, lr, beta1, beta2, eps, weight_decay, decoupled)
    root = math.sqrt(1 - beta2**step)
    decay = 1 - lr * weight_decay if decoupled else weight_decay
    return lr * root / (1 - beta1**step), eps * root, decay


def _counted(p, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """step () += 1, and the three factors of that step (3,), by way of float64."""
    step += 1
    t, factors = step.astype(xp.float64), xp.empty_like(p, shape=3)
    lr = lr.astype(xp.float64) if isinstance(lr, xp.ndarray) else lr
    root = xp.sqrt(1 - beta2**t)
    factors[0] = lr * root / (1 - beta1**t)
    factors[1] = eps * root
    factors[2] = 1 - lr * weight_decay if decoupled else weight_decay
    return factors


# The tile program: a block of elements a program


@triton_kernel
def _count_kernel(
    step_ptr, lr_ptr, factors_ptr, lr: tl.float64, log1: tl.float64, log2: tl.float64,
    eps: tl.float64, weight_decay: tl.float64, LR_THERE: tl.constexpr, DECOUPLED: tl.constexpr,
):  # fmt: skip
    """log1 and log2 are the logarithms of β1 and β2, whose powers are taken."""
    step = tl.load(step_ptr) + 1
    tl.store(step_ptr, step)
    t = step.to(tl.float64)
    rate = tl.load(lr_ptr).to(tl.float64) if LR_THERE else tl.full([], lr, tl.float64)
    root = tl.sqrt(1 - tl.exp(t * log2))
    kind = factors_ptr.dtype.element_ty
    tl.store(factors_ptr, (rate * root / (1 - tl.exp(t * log1))).to(kind))
    tl.store(factors_ptr + 1, (eps * root).to(kind))
    decay = tl.full([], weight_decay, tl.float64)
    if DECOUPLED:
        decay = 1 - rate * decay
    tl.store(factors_ptr + 2, decay.to(kind))


def _counted_triton(p, step, lr, beta1, beta2, eps, weight_decay, decoupled):
    """As _counted, in one launch."""
    there, factors = isinstance(lr, xp.ndarray), xp.empty_like(p, shape=3)
    log1, log2 = (math.log(beta) if beta else -math.inf for beta in (beta1, beta2))
    _count_kernel[(1,)](
        step, lr if there else factors, factors, 0.0 if there else float(lr), log1, log2,
        float(eps), float(weight_decay), LR_THERE=there, DECOUPLED=decoupled,
        num_warps=1,  # a second one might load the step that the first has stored
    )  # fmt: skip
    return factors


@triton_kernel
def _adam_kernel(
    p_ptr, g_ptr, m_ptr, v_ptr, highest_ptr, factors_ptr, n, scale, beta1, beta2, rest1, rest2,
    eps, decay, DECOUPLED: tl.constexpr, AMSGRAD: tl.constexpr, THERE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """decay is what p is multiplied by, or, not decoupled, what times p is added to g. THERE: it,
    scale and eps are loaded."""
    if THERE:
        scale, eps = tl.load(factors_ptr), tl.load(factors_ptr + 1)
        decay = tl.load(factors_ptr + 2)
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
    if not served(p, g, m, v, highest):
        step_.plain(p)(
            p, g, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=eps,
            weight_decay=weight_decay, decoupled=decoupled, highest=highest,
        )  # fmt: skip
        return
    there = isinstance(step, xp.ndarray)
    of_step = _counted_triton if there else _factors
    factors = of_step(p, step, lr, beta1, beta2, eps, weight_decay, decoupled)
    scale, eps, decay = (0.0, 0.0, 0.0) if there else factors
    _adam_kernel[(-(-p.size // BLOCK),)](
        p, g, m, v, v if highest is None else highest, factors if there else v, p.size,
        scale, beta1, beta2, 1 - beta1, 1 - beta2, eps, decay,
        DECOUPLED=decoupled, AMSGRAD=highest is not None, THERE=there, BLOCK=BLOCK,
    )  # fmt: skip
