"""Steps of SGD, Adagrad, RMSprop and Lion.

Each updates parameters p, and its memory of earlier gradients, in place, from the gradient g. All
arrays are contiguous and of one shape, and g is never written to.

The ladder, n parameters of b bytes:

- formula: whole arrays, an operation at a time.
- loop: all of a parameter's numbers are in registers at once. Each array is read once, and all but
  g are written once.
- tile program: the same, and the same bytes, for a block of parameters a program. A gradient of 16
  bits is converted in registers, so that it counts as half an array.

           formula   loop and tile program
SGD           19nb    5nb (with momentum and weight decay; 3nb without momentum)
Adagrad       20nb    5nb
RMSprop       28nb    7nb (with momentum; 9nb centred, 5nb without momentum)
Lion          23nb    5nb
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any

from . import arrays as xp
from .dispatch import formula
from .half_precision import as_dtype
from .launch import triton_kernel
from .loops import F, Out, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

PIECE = 1 << 16  # elements of a gradient of 16 bits that are converted at a time
BLOCK = 1024  # elements a program
Array = xp.ndarray


def decayed(g: Array, p: Array, weight_decay: float) -> Array:
    """The gradient of the loss with weight_decay/2 · |p|² added."""
    return g + weight_decay * p if weight_decay else g


# The formulas


@formula
def sgd_(
    p: Array, g: Array, b: Array | None, *, lr: float, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float, first: bool,
) -> None:  # fmt: skip
    """b is the momentum buffer, filled by the first step; None without momentum."""
    g = decayed(g, p, weight_decay)
    if b is not None:
        b[...] = g if first else momentum * b + (1 - dampening) * g
        g = g + momentum * b if nesterov else b
    p -= lr * g


@formula
def adagrad_(
    p: Array, g: Array, total: Array, *, lr: float, eps: float, weight_decay: float
) -> None:
    """total is the sum of all squared gradients."""
    g = decayed(g, p, weight_decay)
    total += g * g
    p -= lr * g / (xp.sqrt(total) + eps)


@formula
def rmsprop_(
    p: Array, g: Array, v: Array, a: Array | None, b: Array | None, *, lr: float, alpha: float,
    eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """v averages g², a averages g (None if not centred), b is momentum's (None without)."""
    g = decayed(g, p, weight_decay)
    v[...] = alpha * v + (1 - alpha) * g * g
    if a is not None:
        a[...] = alpha * a + (1 - alpha) * g
    d = g / (xp.sqrt(v if a is None else v - a * a) + eps)
    if b is not None:
        b[...] = momentum * b + d
        d = b
    p -= lr * d


@formula
def lion_(
    p: Array, g: Array, m: Array, *, lr: float, beta1: float, beta2: float, weight_decay: float
) -> None:  # fmt: skip
    """m averages g; the step is a sign, of one size for every parameter (none for NaN)."""
    step = xp.sign_of(beta1 * m + (1 - beta1) * g)
    p[...] = p * (1 - lr * weight_decay) - lr * step
    m[...] = beta2 * m + (1 - beta2) * g


# The loops


@helper()
def with_decay(g, p, decay):
    return g + decay * p if decay != 0.0 else g


@loop
def sgd(
    p: Out[::1], g: F[::1], b: Out[::1], lr: float, momentum: float, rest: float, decay: float,
    remembers: bool, first: bool, nesterov: bool,
):  # fmt: skip
    for i in range(len(p)):
        d = with_decay(g[i], p[i], decay)
        if remembers:
            mean = d if first else momentum * b[i] + rest * d
            b[i] = mean
            d = d + momentum * mean if nesterov else mean
        p[i] -= lr * d


@loop
def adagrad(p: Out[::1], g: F[::1], total: Out[::1], lr: float, eps: float, decay: float):
    for i in range(len(p)):
        d = with_decay(g[i], p[i], decay)
        total[i] += d * d
        p[i] -= lr * d / (math.sqrt(total[i]) + eps)


@loop
def rmsprop(
    p: Out[::1], g: F[::1], v: Out[::1], a: Out[::1], b: Out[::1], lr: float, alpha: float,
    rest: float, eps: float, decay: float, momentum: float, centred: bool, remembers: bool,
):  # fmt: skip
    for i in range(len(p)):
        d = with_decay(g[i], p[i], decay)
        square = alpha * v[i] + rest * d * d
        v[i] = square
        if centred:
            mean = alpha * a[i] + rest * d
            a[i] = mean
            square -= mean * mean
        d = d / (math.sqrt(square) + eps)
        if remembers:
            d = momentum * b[i] + d
            b[i] = d
        p[i] -= lr * d


@loop
def lion(
    p: Out[::1], g: F[::1], m: Out[::1], lr: float, beta1: float, beta2: float, rest1: float,
    rest2: float, shrink: float,
):  # fmt: skip
    for i in range(len(p)):
        mean = beta1 * m[i] + rest1 * g[i]
        sign = 1.0 if mean > 0.0 else -1.0 if mean < 0.0 else 0.0
        p[i] = p[i] * shrink - lr * sign
        m[i] = beta2 * m[i] + rest2 * g[i]


def rows(p: Array, g: Array, *memory: Array | None) -> Iterable[list[Array]]:
    """The arrays as a loop takes them, each one row; p stands in for a memory of None.

    A gradient of another dtype than p comes converted, in pieces: there is no copy of all of it.
    """
    flat = [_row(p if a is None else a) for a in (p, g, *memory)]
    return [flat] if g.dtype == p.dtype else _pieces(flat)


def _row(array: Array) -> Array:
    if array.ndim == 1:
        return array
    # reshape of anything else would be a copy: what is written to it would be lost
    assert array.flags.c_contiguous, f"want C-contiguous memory, not strides {array.strides}"
    return array.reshape(-1)


def _pieces(flat: list[Array]) -> Iterator[list[Array]]:
    for start in range(0, len(flat[0]), PIECE):
        p, g, *memory = (a[start : start + PIECE] for a in flat)
        yield [p, as_dtype(g, p.dtype), *memory]


@sgd_.version("numba")
def _sgd_loop(p, g, b, *, lr, momentum, dampening, nesterov, weight_decay, first):
    for arrays in rows(p, g, b):
        sgd(*arrays, lr, momentum, 1 - dampening, weight_decay, b is not None, first, nesterov)


@adagrad_.version("numba")
def _adagrad_loop(p, g, total, *, lr, eps, weight_decay):
    for arrays in rows(p, g, total):
        adagrad(*arrays, lr, eps, weight_decay)


@rmsprop_.version("numba")
def _rmsprop_loop(p, g, v, a, b, *, lr, alpha, eps, weight_decay, momentum):
    for arrays in rows(p, g, v, a, b):
        rmsprop(
            *arrays, lr, alpha, 1 - alpha, eps, weight_decay, momentum, a is not None, b is not None
        )  # fmt: skip


@lion_.version("numba")
def _lion_loop(p, g, m, *, lr, beta1, beta2, weight_decay):
    for arrays in rows(p, g, m):
        lion(*arrays, lr, beta1, beta2, 1 - beta1, 1 - beta2, 1 - lr * weight_decay)


# The tile program: a block of elements a program


@triton_kernel
def _block(p_ptr, g_ptr, n, decay, DECAYS: tl.constexpr, BLOCK: tl.constexpr):
    """Where a program's elements are, which of them there are, p, and the gradient with decay."""
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    p = tl.load(p_ptr + at, at < n)
    g = tl.load(g_ptr + at, at < n).to(tl.float32)
    if DECAYS:  # 0 · p would be NaN if p is infinite
        g += decay * p
    return at, at < n, p, g


@triton_kernel
def _sgd_kernel(
    p_ptr, g_ptr, b_ptr, n, lr, momentum, rest, decay, REMEMBERS: tl.constexpr,
    FIRST: tl.constexpr, NESTEROV: tl.constexpr, DECAYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, inside, p, d = _block(p_ptr, g_ptr, n, decay, DECAYS, BLOCK)
    if REMEMBERS:
        mean = d
        if not FIRST:
            mean = momentum * tl.load(b_ptr + at, inside) + rest * d
        tl.store(b_ptr + at, mean, inside)
        d = d + momentum * mean if NESTEROV else mean
    tl.store(p_ptr + at, p - lr * d, inside)


@triton_kernel
def _adagrad_kernel(
    p_ptr, g_ptr, total_ptr, n, lr, eps, decay, DECAYS: tl.constexpr, BLOCK: tl.constexpr
):
    at, inside, p, d = _block(p_ptr, g_ptr, n, decay, DECAYS, BLOCK)
    total = tl.load(total_ptr + at, inside, other=1.0) + d * d  # not 0 where there is nothing
    tl.store(total_ptr + at, total, inside)
    tl.store(p_ptr + at, p - lr * d / (tl.sqrt(total) + eps), inside)


@triton_kernel
def _rmsprop_kernel(
    p_ptr, g_ptr, v_ptr, a_ptr, b_ptr, n, lr, alpha, rest, eps, decay, momentum,
    CENTRED: tl.constexpr, REMEMBERS: tl.constexpr, DECAYS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    at, inside, p, d = _block(p_ptr, g_ptr, n, decay, DECAYS, BLOCK)
    square = alpha * tl.load(v_ptr + at, inside, other=1.0) + rest * d * d
    tl.store(v_ptr + at, square, inside)
    if CENTRED:
        mean = alpha * tl.load(a_ptr + at, inside, other=0.0) + rest * d
        tl.store(a_ptr + at, mean, inside)
        square -= mean * mean
    d = d / (tl.sqrt(square) + eps)
    if REMEMBERS:
        d = momentum * tl.load(b_ptr + at, inside) + d
        tl.store(b_ptr + at, d, inside)
    tl.store(p_ptr + at, p - lr * d, inside)


@triton_kernel
def _lion_kernel(
    p_ptr, g_ptr, m_ptr, n, lr, beta1, beta2, rest1, rest2, shrink, BLOCK: tl.constexpr
):
    at, inside, p, g = _block(p_ptr, g_ptr, n, 0.0, False, BLOCK)
    m = tl.load(m_ptr + at, inside)
    mean = beta1 * m + rest1 * g
    sign = tl.where(mean > 0, 1.0, tl.where(mean < 0, -1.0, 0.0))  # 0 for NaN
    tl.store(p_ptr + at, p * shrink - lr * sign, inside)
    tl.store(m_ptr + at, beta2 * m + rest2 * g, inside)


def served(p: Array, g: Array, *memory: Array | None) -> bool:
    """Whether the kernel does: numbers reach a kernel in 32 bits, so it is not for float64."""
    kept = [p, *(a for a in memory if a is not None)]
    assert all(a.flags.c_contiguous and a.shape == p.shape for a in (g, *kept))
    gradients = "float32", "float16", "bfloat16"  # what is kept is of 32 bits
    return g.dtype.name in gradients and all(a.dtype == xp.float32 for a in kept)


def _grid(p: Array) -> tuple[int]:
    return (-(-p.size // BLOCK),)


@sgd_.version("triton")
def _sgd_triton(p, g, b, *, lr, momentum, dampening, nesterov, weight_decay, first):
    if not served(p, g, b):
        sgd_.plain(p)(
            p, g, b, lr=lr, momentum=momentum, dampening=dampening, nesterov=nesterov,
            weight_decay=weight_decay, first=first,
        )  # fmt: skip
        return
    _sgd_kernel[_grid(p)](
        p, g, p if b is None else b, p.size, float(lr), float(momentum), 1.0 - dampening,
        float(weight_decay), REMEMBERS=b is not None, FIRST=bool(first), NESTEROV=bool(nesterov),
        DECAYS=weight_decay != 0, BLOCK=BLOCK,
    )  # fmt: skip


@adagrad_.version("triton")
def _adagrad_triton(p, g, total, *, lr, eps, weight_decay):
    if not served(p, g, total):
        adagrad_.plain(p)(p, g, total, lr=lr, eps=eps, weight_decay=weight_decay)
        return
    _adagrad_kernel[_grid(p)](
        p, g, total, p.size, float(lr), float(eps), float(weight_decay),
        DECAYS=weight_decay != 0, BLOCK=BLOCK,
    )  # fmt: skip


@rmsprop_.version("triton")
def _rmsprop_triton(p, g, v, a, b, *, lr, alpha, eps, weight_decay, momentum):
    if not served(p, g, v, a, b):
        rmsprop_.plain(p)(
            p, g, v, a, b, lr=lr, alpha=alpha, eps=eps, weight_decay=weight_decay,
            momentum=momentum,
        )  # fmt: skip
        return
    _rmsprop_kernel[_grid(p)](
        p, g, v, p if a is None else a, p if b is None else b, p.size, float(lr), float(alpha),
        1.0 - alpha, float(eps), float(weight_decay), float(momentum), CENTRED=a is not None,
        REMEMBERS=b is not None, DECAYS=weight_decay != 0, BLOCK=BLOCK,
    )  # fmt: skip


@lion_.version("triton")
def _lion_triton(p, g, m, *, lr, beta1, beta2, weight_decay):
    if not served(p, g, m):
        lion_.plain(p)(p, g, m, lr=lr, beta1=beta1, beta2=beta2, weight_decay=weight_decay)
        return
    _lion_kernel[_grid(p)](
        p, g, m, p.size, float(lr), float(beta1), float(beta2), 1.0 - beta1, 1.0 - beta2,
        1.0 - lr * weight_decay, BLOCK=BLOCK,
    )  # fmt: skip
