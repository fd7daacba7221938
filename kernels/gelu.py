"""GELU (Hendrycks & Gimpel 2016): x · Φ(x), with Φ the normal distribution, exact or by tanh.

Value and slope share Φ, so forward works out both and keeps the slope: backward is one product, and
neither needs the input any more.

The ladder, n numbers of b bytes:

- formula: whole arrays, an operation at a time: forward moves about 30nb bytes.
- loop: forward reads x and writes y and the slope, 3nb bytes.
- tile program: a block of elements in registers, and the same bytes.

Backward reads g and the slope and writes dx, 3nb bytes, in every version.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import normal, sigmoid
from .functions import erf
from .launch import contiguous, triton_kernel
from .loops import F, Out, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

C = math.sqrt(2 / math.pi)
K = 0.044715
BLOCK = 1024  # elements a program


# The formula


@formula
def forward(x: xp.ndarray, approximate: str = "none") -> tuple[xp.ndarray, xp.ndarray]:
    """x · Φ(x), and its slope for backward."""
    if approximate == "tanh":
        half = 0.5 * (1 + xp.tanh(C * (x + K * x**3)))
        slope = half + 2 * x * half * (1 - half) * C * (1 + 3 * K * x * x)
    else:
        half = 0.5 * (1 + erf.formula(x / math.sqrt(2)))
        slope = half + x * xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * half, slope


@formula
def backward(g: xp.ndarray, slope: xp.ndarray) -> xp.ndarray:
    """g · d gelu/dx."""
    return g * slope


# The loop


@helper()
def exact(x):
    """gelu(x) and its slope."""
    half, density = normal(x)
    return x * half, half + x * density


@helper()
def by_tanh(x):
    """The same by tanh. Φ(x) is about (1 + tanh u) / 2 = sigmoid(2u) with u = C(x + Kx³)."""
    square = x * x
    square = 400.0 if square > 400.0 else square  # Φ is 0 or 1 there, and 0 · inf would be NaN
    half = sigmoid(2.0 * C * x * (1.0 + K * square))
    rest = half * (1.0 - half) * (2.0 * C + 6.0 * C * K * square)
    return x * half, half + x * rest


@loop
def gelu_each(x: F[::1], y: Out[::1], slope: Out[::1]):
    for i in range(len(x)):
        y[i], slope[i] = exact(x[i])


@loop
def gelu_tanh_each(x: F[::1], y: Out[::1], slope: Out[::1]):
    for i in range(len(x)):
        y[i], slope[i] = by_tanh(x[i])


@forward.version("numba")
def _forward_loop(x, approximate="none"):
    x = xp.asarray(x, order="C")  # np.ascontiguousarray would make 1-d of 0-d
    y, slope = xp.empty_like(x), xp.empty_like(x)
    run = gelu_tanh_each if approximate == "tanh" else gelu_each
    run(x.reshape(-1), y.reshape(-1), slope.reshape(-1))
    return y, slope


# The tile program: a block of elements a program


@triton_kernel
def _gelu_kernel(
    x_ptr, y_ptr, slope_ptr, n, TANH: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = at < n
    x = tl.load(x_ptr + at, mask=inside).to(tl.float64 if DOUBLE else tl.float32)
    if TANH:
        u = 0.7978845608028654 * x * (1 + 0.044715 * x * x)
        half = tl.sigmoid(2 * u)  # (1 + tanh u) / 2
        rest = x * 2 * half * (1 - half) * 0.7978845608028654 * (1 + 3 * 0.044715 * x * x)
    else:
        half = 0.5 * (1 + tl.erf(x * 0.7071067811865476))
        rest = x * 0.3989422804014327 * tl.exp(-0.5 * x * x)
    tl.store(y_ptr + at, (x * half).to(y_ptr.dtype.element_ty), mask=inside)
    tl.store(slope_ptr + at, (half + rest).to(slope_ptr.dtype.element_ty), mask=inside)


@forward.version("triton")
def _forward_triton(x, approximate="none"):
    x = contiguous(x)
    y, slope = xp.empty_like(x), xp.empty_like(x)
    constants = {"TANH": approximate == "tanh", "DOUBLE": x.dtype == xp.float64, "BLOCK": BLOCK}
    _gelu_kernel[(-(-x.size // BLOCK),)](x, y, slope, x.size, **constants)
    return y, slope


@triton_kernel
def _scale_kernel(g_ptr, slope_ptr, dx_ptr, n, DOUBLE: tl.constexpr, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    dx = tl.load(g_ptr + at, at < n).to(kind) * tl.load(slope_ptr + at, at < n).to(kind)
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), at < n)


@backward.version("triton")
def _backward_triton(g, slope):
    g, dx = xp.asarray(g, order="C"), xp.empty_like(slope)
    constants = {"DOUBLE": g.dtype == xp.float64, "BLOCK": BLOCK}
    _scale_kernel[(-(-g.size // BLOCK),)](g, slope, dx, g.size, **constants)
    return dx
