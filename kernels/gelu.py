"""GELU (Hendrycks & Gimpel 2016), exact and by tanh, tile by tile.

The ladder: naive, each pass streams the array through memory; in NumPy, all passes over one tile
run while it is in cache; in Triton, over one block while it is in registers. Value and slope share
the distribution function, so forward works out both and keeps the slope: backward is one product,
and neither needs the input any more. Memory traffic: forward reads x and writes y and the slope,
backward reads g and the slope and writes dx.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .erf import erf
from .launch import contiguous, triton_kernel
from .tiles import flat_tiles

tl: Any = None  # Triton's language, once a kernel is launched

C = math.sqrt(2 / math.pi)
K = 0.044715
BLOCK = 1024  # elements a program


@dispatched
def forward(x: xp.ndarray, approximate: str = "none") -> tuple[xp.ndarray, xp.ndarray]:
    """x · Φ(x), and its slope for backward.

    Temporary memory is two tiles of ELEMENTS; but exact in float16 it is 8 and in float64 14,
    for erf then has more terms.
    """
    x = xp.asarray(x, order="C")  # np.ascontiguousarray would make 1-d of 0-d
    y, slope = xp.empty_like(x), xp.empty_like(x)
    form = _by_tanh if approximate == "tanh" else _exact
    for xt, yt, st in flat_tiles(x, y, slope):
        half = xp.empty_like(xt)
        form(xt, half, yt, st)
        xp.multiply(half, xt, out=yt)
        st += half
    return y, slope


def naive(x: xp.ndarray, approximate: str = "none") -> xp.ndarray:
    """The formula, one temporary an operation."""
    return x * _naive_half(x, approximate)


@forward.version("naive")
def _forward_naive(x, approximate="none"):
    half = _naive_half(x, approximate)
    if approximate == "tanh":
        slope = half + 2 * x * half * (1 - half) * C * (1 + 3 * K * x * x)
    else:
        slope = half + x * xp.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return x * half, slope


def _naive_half(x, approximate):
    if approximate == "tanh":
        return 0.5 * (1 + xp.tanh(C * (x + K * x**3)))
    return 0.5 * (1 + erf(x / math.sqrt(2)))


@dispatched
def backward(g: xp.ndarray, slope: xp.ndarray) -> xp.ndarray:
    """g · d gelu/dx."""
    return g * slope


def _exact(x, half, scratch, rest):
    """half = Φ(x); rest = x · φ(x), φ the normal density."""
    erf(x, out=half, scale=math.sqrt(0.5))
    half *= 0.5
    half += 0.5
    xp.multiply(x, x, out=rest)
    rest *= -0.5
    xp.exp(rest, out=rest)
    rest *= C / 2
    rest *= x


def _by_tanh(x, half, scratch, rest):
    """With u = C(x + Kx³): half = (1 + tanh u) / 2; rest = x · d half/dx."""
    square = xp.multiply(x, x, out=scratch)
    xp.multiply(square, C * K, out=half)
    half += C
    half *= x
    xp.tanh(half, out=half)
    half *= 0.5
    half += 0.5
    xp.subtract(1, half, out=rest)
    rest *= half  # half the slope of tanh; before x: x³ may overflow, and inf · 0 is NaN
    square *= 6 * C * K
    square += 2 * C
    rest *= square
    rest *= x


# The same on a GPU: a block of elements a program


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
