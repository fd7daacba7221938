"""Softmax and its logarithm along an axis.

The ladder, n numbers of b bytes:

- formula: whole arrays, an operation at a time. Forward moves 8nb bytes (read x, read x and write
  x - max, exp in and out, sum, quotient), backward 8nb.
- loop: a row at a time, which stays in the cache between its three passes (maximum, exponentials
  and their sum, quotient). Forward moves 2nb bytes: x is read, y written. Backward moves 3nb.
- tile program: several narrow rows, or a whole one, in the registers of a program, and the same
  bytes as the loop. A row wider than WIDEST is read twice: the first time its maximum and sum are
  found together (online softmax, Milakov & Gimelshein 2018), for a sum may be rescaled when a
  larger maximum turns up. Forward moves 3nb bytes, backward 5nb.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import exp, row_dot, row_max, row_sum
from .launch import next_power_of_2, triton_kernel
from .loops import F, Out, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 2048  # numbers a program of narrow rows: 16 a thread of 4 warps
WIDEST = 16384  # a row up to here stays in registers: 32 a thread of 16 warps, of float64 half


# The formula


@formula
def forward(x: xp.ndarray, axis: int = -1) -> xp.ndarray:
    """exp(x) / Σ exp(x) along an axis. A row of -inf gives NaN, as in PyTorch."""
    e = xp.exp(x - xp.highest(x, axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


@formula
def backward(g: xp.ndarray, y: xp.ndarray, axis: int = -1) -> xp.ndarray:
    """y · (g - Σ g·y), from the softmax y."""
    return y * (g - (g * y).sum(axis, keepdims=True))


@formula
def log_forward(x: xp.ndarray, axis: int = -1) -> xp.ndarray:
    """x - log(Σ exp(x)) along an axis."""
    x = x - xp.highest(x, axis, keepdims=True)
    with xp.errstate(divide="ignore"):  # the sum over nothing is 0
        return x - xp.log(xp.exp(x).sum(axis, keepdims=True))


@formula
def log_backward(g: xp.ndarray, y: xp.ndarray, axis: int = -1) -> xp.ndarray:
    """g - exp(y) · Σ g, from the log-softmax y."""
    return g - xp.exp(y) * g.sum(axis, keepdims=True)


def by_rows(fill: Callable[..., None], axis: int, *arrays: xp.ndarray) -> xp.ndarray:
    """A new array that fill(*arrays, new) fills, all of them (n, v) with the axis last.

    Temporary memory: along another axis than the last, copies of all arrays.
    """
    shape = arrays[0].shape or (1,)
    moved = [xp.ascontiguousarray(a.reshape(shape).swapaxes(axis, -1)) for a in arrays]
    out = xp.empty_like(moved[0])
    fill(*(a.reshape(a.size // max(a.shape[-1], 1), a.shape[-1]) for a in (*moved, out)))
    if arrays[0].ndim and axis in (-1, out.ndim - 1):
        return out  # no view: a gradient that nothing else holds need not be copied
    return out.swapaxes(axis, -1).reshape(arrays[0].shape)


# The loop


@loop
def softmax_rows(x: F[:, ::1], y: Out[:, ::1]):  # (n, v) both
    n, v = x.shape
    for i in range(n):
        top = row_max(x[i])
        for j in range(v):
            y[i, j] = exp(x[i, j] - top)
        scale = 1.0 / row_sum(y[i])
        for j in range(v):
            y[i, j] *= scale


@loop
def softmax_slope_rows(g: F[:, ::1], y: F[:, ::1], dx: Out[:, ::1]):
    n, v = g.shape
    for i in range(n):
        mean = row_dot(g[i], y[i])
        for j in range(v):
            dx[i, j] = y[i, j] * (g[i, j] - mean)


@loop
def log_softmax_rows(x: F[:, ::1], y: Out[:, ::1]):
    n, v = x.shape
    for i in range(n):
        top = row_max(x[i])
        for j in range(v):
            y[i, j] = exp(x[i, j] - top)
        shift = math.log(row_sum(y[i]))
        for j in range(v):
            y[i, j] = (x[i, j] - top) - shift


@loop
def log_softmax_slope_rows(g: F[:, ::1], y: F[:, ::1], dx: Out[:, ::1]):
    n, v = g.shape
    for i in range(n):
        total = row_sum(g[i])
        for j in range(v):
            dx[i, j] = g[i, j] - exp(y[i, j]) * total


@forward.version("numba")
def _forward_loop(x, axis=-1):
    return by_rows(softmax_rows, axis, x)


@backward.version("numba")
def _backward_loop(g, y, axis=-1):
    return by_rows(softmax_slope_rows, axis, g, y)


@log_forward.version("numba")
def _log_forward_loop(x, axis=-1):
    return by_rows(log_softmax_rows, axis, x)


@log_backward.version("numba")
def _log_backward_loop(g, y, axis=-1):
    return by_rows(log_softmax_slope_rows, axis, g, y)


# The tile program: some whole rows, or one row that is read twice


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

    return by_rows(fill, axis, *arrays)


@forward.version("triton")
def _forward_triton(x, axis=-1):
    return _launched(False, axis, x)


@backward.version("triton")
def _backward_triton(g, y, axis=-1):
    return _launched(False, axis, g, y)


@log_forward.version("triton")
def _log_forward_triton(x, axis=-1):
    return _launched(True, axis, x)


@log_backward.version("triton")
def _log_backward_triton(g, y, axis=-1):
    return _launched(True, axis, g, y)
