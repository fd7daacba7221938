"""Softmax and its logarithm along an axis, a tile of rows at a time.

The ladder: naive, three walks through memory, for the maximum, the sum and the quotient; online
(Milakov & Gimelshein 2018), maximum and sum in one walk, for a sum may be rescaled when a larger
maximum turns up; blocked, all walks over what is at hand. In NumPy that is a tile of rows in
cache. In Triton it is several narrow rows, or a whole one, in registers: forward reads x and
writes y, backward reads g and y and writes dx, each once. Of a row wider than WIDEST the blocks
are read twice, online and then for the result: 2 reads and 1 write, backward 4 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import next_power_of_2, triton_kernel
from .tiles import row_tiles, spreading

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 2048  # numbers a program of narrow rows: 16 a thread of 4 warps
WIDEST = 16384  # a row up to here stays in registers: 32 a thread of 16 warps, of float64 half

NEAR = 16.0  # rows whose maxima lie this close may share one shift: e¹⁶ costs no digits
SMALL = 20.0  # a first row's maximum of at most this size: worth trying without a shift
RANGE = 1e-10, 1e10  # sums in which no digit is lost, though summands below 1e-38 are 0


def naive(x: xp.ndarray, axis: int = -1) -> xp.ndarray:
    """The formula, one temporary a pass."""
    e = xp.exp(x - xp.highest(x, axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def shift(x: xp.ndarray, out: xp.ndarray) -> None:
    """out = x minus a maximum, so that exp(out) cannot overflow; x (n, v) is one tile.

    A number for the whole tile where its rows are alike, for a number a row costs twice as much
    (in float16, which ends at e⁻¹⁷, a number a row all the same).
    """
    top = x.max(1, keepdims=True, initial=-xp.inf)
    highest = top.max(initial=-xp.inf)
    near = x.itemsize > 2 and xp.isfinite(highest) and top.min(initial=xp.inf) >= highest - NEAR
    xp.subtract(x, highest if near else top, out=out)


def exponentials(x: xp.ndarray, out: xp.ndarray) -> xp.ndarray:
    """out = exp(x - a number a row), x (n, v) one tile; returns the sums of its rows (n,).

    Two passes where that number may be 0, which the sums tell: four with the maxima taken off.
    """
    if x.itemsize > 2 and abs(x[0].max(initial=-xp.inf)) <= SMALL:
        with xp.errstate(over="ignore", invalid="ignore"):
            sums = _sums(xp.exp(x, out=out))
        if RANGE[0] <= sums.min() and sums.max() <= RANGE[1]:
            return sums
    shift(x, out)
    return _sums(xp.exp(out, out=out))


def _by_rows(rows_of: Callable[..., None], axis: int, *arrays: xp.ndarray) -> xp.ndarray:
    """Fill a new array tile by tile: rows_of(*tiles, tile of it), `axis` being the rows'."""

    def fill(*flat):
        with spreading(flat[0].shape[1]):
            for rows in row_tiles(*flat[0].shape):
                rows_of(*(a[rows] for a in flat))

    return _in_rows(fill, axis, *arrays)


def _in_rows(fill: Callable[..., None], axis: int, *arrays: xp.ndarray) -> xp.ndarray:
    """A new array that fill(*arrays, it) fills, all of them (n, v) and without gaps."""
    shape = arrays[0].shape or (1,)
    moved = [xp.ascontiguousarray(a.reshape(shape).swapaxes(axis, -1)) for a in arrays]
    out = xp.empty_like(moved[0])
    fill(*(a.reshape(a.size // max(a.shape[-1], 1), a.shape[-1]) for a in (*moved, out)))
    if arrays[0].ndim and axis in (-1, out.ndim - 1):
        return out  # no view: a gradient that nothing else holds need not be copied
    return out.swapaxes(axis, -1).reshape(arrays[0].shape)


@dispatched
def forward(x: xp.ndarray, axis: int) -> xp.ndarray:
    """exp(x) / sum(exp(x)) along an axis: three passes, five where a maximum is taken off.

    Temporary memory: a few numbers a row; along another axis than the last, copies of all arrays.
    """
    return _by_rows(_softmax, axis, x)


def _softmax(x, y):
    sums = exponentials(x, y)
    if x.itemsize == 2:  # the inverse of a sum over 16384 would lose digits
        y /= sums[:, None]
    else:
        with xp.errstate(divide="ignore"):
            y *= (1 / sums)[:, None]


def _sums(x: xp.ndarray) -> xp.ndarray:
    return xp.matmul(x, xp.ones_like(x, shape=x.shape[1]))


@dispatched
def backward(g: xp.ndarray, y: xp.ndarray, axis: int) -> xp.ndarray:
    """y · (g - Σ g·y), from the softmax y: three passes. Temporary memory: as forward's."""
    return _by_rows(_softmax_slope, axis, g, y)


def _softmax_slope(g, y, dx):
    xp.subtract(g, xp.vecdot(g, y)[:, None], out=dx)
    dx *= y


@dispatched
def log_forward(x: xp.ndarray, axis: int) -> xp.ndarray:
    """x - log(sum(exp(x))) along an axis. Temporary memory: as forward's, and a tile."""
    return _by_rows(_log_softmax, axis, x)


def _log_softmax(x, y):
    shift(x, y)
    y -= xp.log(_sums(xp.exp(y)))[:, None]


@dispatched
def log_backward(g: xp.ndarray, y: xp.ndarray, axis: int) -> xp.ndarray:
    """g - exp(y) · Σ g, from the log-softmax y. Temporary memory: as forward's."""
    return _by_rows(_log_softmax_slope, axis, g, y)


def _log_softmax_slope(g, y, dx):
    xp.exp(y, out=dx)
    dx *= _sums(g)[:, None]
    xp.subtract(g, dx, out=dx)


forward.version("naive")(naive)


@backward.version("naive")
def _backward_naive(g, y, axis):
    return y * (g - (g * y).sum(axis, keepdims=True))


@log_forward.version("naive")
def _log_naive(x, axis):
    x = x - xp.highest(x, axis, keepdims=True)
    with xp.errstate(divide="ignore"):  # of nothing the sum is 0
        return x - xp.log(xp.exp(x).sum(axis, keepdims=True))


@log_backward.version("naive")
def _log_backward_naive(g, y, axis):
    return g - xp.exp(y) * g.sum(axis, keepdims=True)


# The same on a GPU: some whole rows a program, or one row that is read twice


@triton_kernel
def _rows_kernel(
    x_ptr, y_ptr, rows, v,
    LOG: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    at, inside = row * v + column, (row < rows) & (column < v)
    x = tl.load(x_ptr + at, inside, other=0).to(tl.float64 if DOUBLE else tl.float32)
    x = tl.where(column < v, x, float("-inf"))  # rows past the last hold zeros: no NaN
    x -= tl.max(x, 1)[:, None]
    e = tl.exp(x)
    total = tl.sum(e, 1)[:, None]
    if LOG:
        y = x - tl.log(total)
    else:
        y = e * (1 / total)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _rows_slope_kernel(
    g_ptr, y_ptr, dx_ptr, rows, v,
    LOG: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    at, inside = row * v + column, (row < rows) & (column < v)
    g = tl.load(g_ptr + at, inside, other=0).to(kind)
    y = tl.load(y_ptr + at, inside, other=0).to(kind)
    if LOG:
        dx = g - tl.exp(y) * tl.sum(g, 1)[:, None]
    else:
        dx = y * (g - tl.sum(g * y, 1)[:, None])
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), inside)


@triton_kernel
def _wide_kernel(
    x_ptr, y_ptr, rows, v,
    LOG: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A maximum and a sum a lane, so that threads meet once a row, not once a block."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    start_of_row = tl.program_id(0).to(tl.int64) * v
    lane = tl.arange(0, COLUMNS)
    tops = tl.full([COLUMNS], float("-inf"), kind)
    sums = tl.zeros([COLUMNS], kind)
    for start in range(0, v, COLUMNS):
        column = start + lane
        x = tl.load(x_ptr + start_of_row + column, column < v, other=float("-inf")).to(kind)
        before, tops = tops, tl.maximum(tops, x)
        shift = tl.where(tops == float("-inf"), 0.0, tops)  # -inf less -inf would be NaN
        sums = sums * tl.exp(before - shift) + tl.exp(x - shift)
    top = tl.max(tops, 0)
    total = tl.sum(sums * tl.exp(tops - top), 0)
    for start in range(0, v, COLUMNS):
        column = start + lane
        x = tl.load(x_ptr + start_of_row + column, column < v, other=float("-inf")).to(kind) - top
        if LOG:
            y = x - tl.log(total)
        else:
            y = tl.exp(x) * (1 / total)
        tl.store(y_ptr + start_of_row + column, y.to(y_ptr.dtype.element_ty), column < v)


@triton_kernel
def _wide_slope_kernel(
    g_ptr, y_ptr, dx_ptr, rows, v,
    LOG: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    start_of_row = tl.program_id(0).to(tl.int64) * v
    lane = tl.arange(0, COLUMNS)
    sums = tl.zeros([COLUMNS], kind)
    for start in range(0, v, COLUMNS):
        column = start + lane
        g = tl.load(g_ptr + start_of_row + column, column < v, other=0).to(kind)
        if LOG:
            sums += g
        else:
            sums += g * tl.load(y_ptr + start_of_row + column, column < v, other=0).to(kind)
    total = tl.sum(sums, 0)
    for start in range(0, v, COLUMNS):
        column = start + lane
        g = tl.load(g_ptr + start_of_row + column, column < v, other=0).to(kind)
        y = tl.load(y_ptr + start_of_row + column, column < v, other=0).to(kind)
        if LOG:
            dx = g - tl.exp(y) * total
        else:
            dx = y * (g - total)
        tl.store(dx_ptr + start_of_row + column, dx.to(dx_ptr.dtype.element_ty), column < v)


def cut(rows: int, v: int, double: bool) -> tuple[bool, int, dict[str, Any]]:
    """For rows of v numbers: whether they are wide; how many programs; a kernel's constants."""
    wide = v > WIDEST // (1 + double)
    columns = 2 * BLOCK if wide else next_power_of_2(v)
    tall = 1 if wide else min(max(1, BLOCK // columns), next_power_of_2(rows))
    warps = min(16, max(4, tall * columns // 512))
    constants = {"DOUBLE": double, "ROWS": tall, "COLUMNS": columns, "num_warps": warps}
    return wide, -(-rows // tall), constants


def _launched(log: bool, axis: int, *arrays: xp.ndarray) -> xp.ndarray:
    """Forward of one array, backward of two."""

    def fill(*flat):
        rows, v = flat[0].shape
        wide, programs, constants = cut(rows, v, flat[0].dtype == xp.float64)
        kernels = (_rows_kernel, _wide_kernel), (_rows_slope_kernel, _wide_slope_kernel)
        kernels[len(arrays) - 1][wide][(programs,)](*flat, rows, v, LOG=log, **constants)

    return _in_rows(fill, axis, *arrays)


@forward.version("triton")
def _forward_triton(x, axis):
    return _launched(False, axis, x)


@backward.version("triton")
def _backward_triton(g, y, axis):
    return _launched(False, axis, g, y)


@log_forward.version("triton")
def _log_forward_triton(x, axis):
    return _launched(True, axis, x)


@log_backward.version("triton")
def _log_backward_triton(g, y, axis):
    return _launched(True, axis, g, y)
