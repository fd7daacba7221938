"""SwiGLU (Shazeer 2020, "GLU variants improve transformer"): silu(gate) · up, both in one array.

The last axis holds the gate in its first half and, beside it, the half that it opens or closes
("up"): one product with one weight makes both. silu(a) is a · σ(a), its slope σ(a) + silu(a) ·
(1 - σ(a)). Backward works out σ again, so nothing but x is kept.

The ladder, x (n, 2h) of b bytes a number:

- formula: whole arrays, an operation at a time: forward moves 12nhb bytes, backward 30nhb.
- loop: forward reads x and writes y, 3nhb bytes; backward reads g and x and writes dx, 5nhb.
- tile program: a block of some rows' columns in registers, and the same bytes.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import sigmoid
from .launch import contiguous, next_power_of_2, triton_kernel
from .loops import F, Out, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # of y a program: 8 a thread, two loads of 16 bytes of float16


# The formula


@formula
def forward(x: xp.ndarray) -> xp.ndarray:
    """x (..., 2h) -> (..., h): silu(x[..., :h]) · x[..., h:]."""
    a, b = xp.split(x, 2, -1)
    with xp.errstate(over="ignore"):  # exp(-a) may be infinite: 1 / (1 + it) is 0
        return a / (1 + xp.exp(-a)) * b


@formula
def backward(g: xp.ndarray, x: xp.ndarray) -> xp.ndarray:
    """g (..., h), x (..., 2h) -> (..., 2h)."""
    a, b = xp.split(x, 2, -1)
    with xp.errstate(over="ignore"):
        s = 1 / (1 + xp.exp(-a))
    return xp.concatenate((g * b * (s + a * s * (1 - s)), g * a * s), -1)


# The loop


@loop
def swiglu_rows(x: F[:, ::1], y: Out[:, ::1]):  # (n, 2h), (n, h)
    n, h = y.shape
    for i in range(n):
        for j in range(h):
            a, b = x[i, j], x[i, h + j]
            y[i, j] = a * sigmoid(a) * b


@loop
def swiglu_slope_rows(g: F[:, ::1], x: F[:, ::1], dx: Out[:, ::1]):  # (n, h), (n, 2h) both
    n, h = g.shape
    for i in range(n):
        for j in range(h):
            a, b = x[i, j], x[i, h + j]
            s = sigmoid(a)
            dx[i, j] = g[i, j] * b * (s + a * s * (1.0 - s))
            dx[i, h + j] = g[i, j] * a * s


@forward.version("numba")
def _forward_loop(x):
    x = xp.ascontiguousarray(x)
    y = xp.empty_like(x, shape=(*x.shape[:-1], x.shape[-1] // 2))
    swiglu_rows(_rows(x, y), _rows(y, y))
    return y


@backward.version("numba")
def _backward_loop(g, x):
    x = xp.ascontiguousarray(x)
    dx = xp.empty_like(x)
    swiglu_slope_rows(_rows(xp.ascontiguousarray(g), g), _rows(x, g), _rows(dx, g))
    return dx


def _rows(x: xp.ndarray, y: xp.ndarray) -> xp.ndarray:
    """x as (n, its last size), with the n of y."""
    return x.reshape(y.size // max(y.shape[-1], 1), x.shape[-1])


# The tile program: a block of some rows' columns


@triton_kernel
def _swiglu_kernel(
    x_ptr, y_ptr, rows, h, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < h)
    kind = tl.float64 if DOUBLE else tl.float32
    gate = x_ptr + row * (2 * h) + column
    a = tl.load(gate, inside).to(kind)
    b = tl.load(gate + h, inside).to(kind)
    y = a * tl.sigmoid(a) * b
    tl.store(y_ptr + row * h + column, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _slopes_kernel(
    g_ptr, x_ptr, dx_ptr, rows, h,
    DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (row < rows) & (column < h)
    kind = tl.float64 if DOUBLE else tl.float32
    at = row * (2 * h) + column
    g = tl.load(g_ptr + row * h + column, inside).to(kind)
    a = tl.load(x_ptr + at, inside).to(kind)
    b = tl.load(x_ptr + at + h, inside).to(kind)
    s = tl.sigmoid(a)
    da = g * b * (s + a * s * (1 - s))
    tl.store(dx_ptr + at, da.to(dx_ptr.dtype.element_ty), inside)
    tl.store(dx_ptr + at + h, (g * a * s).to(dx_ptr.dtype.element_ty), inside)


@forward.version("triton")
def _forward_triton(x):
    x = contiguous(x)
    y = xp.empty_like(x, shape=(*x.shape[:-1], x.shape[-1] // 2))
    grid, sizes, constants = _cut(x)
    _swiglu_kernel[grid](x, y, *sizes, **constants)
    return y


@backward.version("triton")
def _backward_triton(g, x):
    g, x = contiguous(g), contiguous(x)
    dx, (grid, sizes, constants) = xp.empty_like(x), _cut(x)
    _slopes_kernel[grid](g, x, dx, *sizes, **constants)
    return dx


def _cut(x):
    """The grid, the sizes (rows, h) and the constants of a kernel for x (..., 2h)."""
    h = x.shape[-1] // 2
    rows, wide = x.size // max(2 * h, 1), min(BLOCK, next_power_of_2(h))
    tall = BLOCK // wide
    constants = {"DOUBLE": x.dtype == xp.float64, "ROWS": tall, "COLUMNS": wide}
    return (-(-rows // tall), -(-h // wide)), (rows, h), constants
