"""SwiGLU (Shazeer 2020, "GLU variants improve transformer"): silu(gate) · up, both in one array.

The last axis holds the gate in its first half and, beside it, what goes up: one product with one
weight makes both. silu(a) is a · σ(a), its slope σ(a) + silu(a) · (1 - σ(a)).

The ladder: naive, each operation streams its arrays through memory; in NumPy, all passes over one
tile of rows run while it is in cache; in Triton, over one block while it is in registers. Backward
works out σ again, so nothing but x is kept. Memory traffic: forward reads x and writes y, half as
wide; backward reads g and x and writes dx: 3 and 5 times y's size.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import contiguous, next_power_of_2, triton_kernel
from .pointwise import sigmoid, silu
from .tiles import row_tiles, spreading

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # of y a program: 8 a thread, two loads of 16 bytes of float16


@dispatched
def forward(x: xp.ndarray) -> xp.ndarray:
    """x (..., 2h) -> (..., h): silu(x[..., :h]) · x[..., h:].

    Temporary memory is a third of a tile of ROW_ELEMENTS.
    """
    rows, h = _rows(x)
    y = xp.empty_like(rows, shape=(len(rows), h))
    with xp.errstate(over="ignore"), spreading(h):  # exp(-x) may be infinite: 1 / (1 + it) is 0
        for at in row_tiles(len(rows), h):
            silu(rows[at, :h], y[at])
            y[at] *= rows[at, h:]
    return y.reshape(*x.shape[:-1], h)


@dispatched
def backward(g: xp.ndarray, x: xp.ndarray) -> xp.ndarray:
    """g (..., h), x (..., 2h) -> (..., 2h).

    Temporary memory is four tiles of ROW_ELEMENTS.
    """
    rows, h = _rows(x)
    g, dx = g.reshape(len(rows), h), xp.empty_like(rows)
    with xp.errstate(over="ignore"), spreading(h):
        for at in row_tiles(len(rows), h):
            _slopes(g[at], rows[at, :h], rows[at, h:], dx[at, :h], dx[at, h:])
    return dx.reshape(x.shape)


@forward.version("naive")
def naive(x: xp.ndarray) -> xp.ndarray:
    """The formula, one temporary an operation."""
    a, b = xp.split(x, 2, -1)
    return a / (1 + xp.exp(-a)) * b


@backward.version("naive")
def _backward_naive(g, x):
    a, b = xp.split(x, 2, -1)
    s = 1 / (1 + xp.exp(-a))
    return xp.concatenate((g * b * (s + a * s * (1 - s)), g * a * s), -1)


def _rows(x: xp.ndarray) -> tuple[xp.ndarray, int]:
    """x as (rows, 2h), and h."""
    x, h = xp.asarray(x, order="C"), x.shape[-1] // 2
    return x.reshape(x.size // max(2 * h, 1), 2 * h), h


def _slopes(g, a, b, da, db):
    s = xp.empty_like(g, order="C")  # passes over arrays with gaps, as da and db, take longer
    sigmoid(a, s)
    value = a * s
    xp.multiply(value, g, out=db)
    slope = 1 - s
    slope *= value
    slope += s
    slope *= g
    xp.multiply(slope, b, out=da)


# The same on a GPU: a block of some rows' columns a program


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
