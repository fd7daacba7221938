"""Triton kernels that layer norm (CENTRED) and RMS norm share: see those for the ladder.

The array stats keeps 1/deviation of each row; if CENTRED, its second line keeps the mean.
The cotangents of weight and bias are summed without atomics, so two runs agree to the last bit.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .launch import contiguous, next_power_of_2, triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 4096  # numbers a program at a time: 16 a thread of 8 warps
WIDEST = 8192  # a row up to here stays in registers: 16 a thread of 16 warps; float64, a quarter
PROGRAMS = 264  # that sum over rows, two for each of an H100's multiprocessors
COLUMNS_ADDED = 64  # columns of partial sums a program adds up, as many rows at a time


@triton_kernel
def _forward_kernel(
    x_ptr, w_ptr, b_ptr, y_ptr, stats_ptr, rows, h, eps: tl.constexpr,
    CENTRED: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.arange(0, COLUMNS)[None, :]
    at, inside = row * h + column, (row < rows) & (column < h)
    y = tl.load(x_ptr + at, inside, other=0).to(kind)
    if CENTRED:
        mean = tl.sum(y, 1)[:, None] / h
        tl.store(stats_ptr + rows + row, mean, row < rows)
        y = tl.where(column < h, y - mean, 0.0)
    rstd = 1 / tl.sqrt(tl.sum(y * y, 1)[:, None] / h + eps)
    tl.store(stats_ptr + row, rstd, row < rows)
    y *= rstd
    if w_ptr is not None:
        y *= tl.load(w_ptr + column, column < h, other=0).to(kind)
    if b_ptr is not None:
        y += tl.load(b_ptr + column, column < h, other=0).to(kind)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _wide_forward_kernel(
    x_ptr, w_ptr, b_ptr, y_ptr, stats_ptr, rows, h, eps: tl.constexpr,
    CENTRED: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A mean and a sum of squares about it a lane (Welford 1962), joined at the end (Chan 1979)."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64)
    lane = tl.arange(0, COLUMNS)
    means = tl.zeros([COLUMNS], kind)
    squares = tl.zeros([COLUMNS], kind)
    seen = tl.zeros([1], kind)
    for start in range(0, h, COLUMNS):
        inside = start + lane < h
        x = tl.load(x_ptr + row * h + start + lane, inside, other=0).to(kind)
        if CENTRED:
            seen += 1
            off = tl.where(inside, x - means, 0.0)
            means += off * (1 / seen)
            squares += off * (x - means)
        else:
            squares += x * x
    count = tl.cdiv(h - lane, COLUMNS).to(kind)
    mean = tl.sum(means * count, 0) / h
    total = tl.sum(squares + count * (means - mean) * (means - mean), 0)
    rstd = 1 / tl.sqrt(total / h + eps)
    tl.store(stats_ptr + row, rstd)
    if CENTRED:
        tl.store(stats_ptr + rows + row, mean)
    for start in range(0, h, COLUMNS):
        column = start + lane
        y = tl.load(x_ptr + row * h + column, column < h, other=0).to(kind)
        y = (y - mean) * rstd
        if w_ptr is not None:
            y *= tl.load(w_ptr + column, column < h, other=0).to(kind)
        if b_ptr is not None:
            y += tl.load(b_ptr + column, column < h, other=0).to(kind)
        tl.store(y_ptr + row * h + column, y.to(y_ptr.dtype.element_ty), column < h)


@triton_kernel
def _normal(x_ptr, stats_ptr, row, rows, at, inside, CENTRED: tl.constexpr, kind: tl.constexpr):
    """The rows (ROWS, 1) of x, normalized, with 0 outside; and their 1/deviation (ROWS, 1)."""
    x = tl.load(x_ptr + at, inside, other=0).to(kind)
    rstd = tl.load(stats_ptr + row, row < rows, other=0)
    if CENTRED:
        x = tl.where(inside, x - tl.load(stats_ptr + rows + row, row < rows, other=0), 0.0)
    return x * rstd, rstd


@triton_kernel
def _backward_kernel(
    g_ptr, x_ptr, w_ptr, stats_ptr, dx_ptr, sums_ptr, rows, h, share,
    SLOPE: tl.constexpr, CENTRED: tl.constexpr, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Of `share` rows a program: dx if SLOPE (then a block holds whole rows), and the sums of
    g · normal and, CENTRED, of g to sums (1 or 2, programs, h)."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    number = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    dw = tl.zeros([ROWS, COLUMNS], kind)
    db = tl.zeros([ROWS, COLUMNS], kind)
    # w, hoisted out of this loop, would take registers: Triton 3.6 spills
    for start in tl.range(0, share, ROWS, disable_licm=not (CENTRED or DOUBLE)):
        row = number * share + start + tl.arange(0, ROWS)[:, None]
        base, inside = row * h, (row < rows) & (column < h)
        normal, rstd = _normal(x_ptr + base, stats_ptr, row, rows, column, inside, CENTRED, kind)
        g = tl.load(g_ptr + base + column, inside, other=0).to(kind)
        dw += g * normal
        if CENTRED:
            db += g
        if SLOPE:
            if w_ptr is not None:
                g *= tl.load(w_ptr + column, column < h, other=0).to(kind)
            dx = g - normal * (tl.sum(g * normal, 1)[:, None] / h)
            if CENTRED:
                dx -= tl.sum(g, 1)[:, None] / h
            tl.store(dx_ptr + base + column, (dx * rstd).to(dx_ptr.dtype.element_ty), inside)
    to = sums_ptr + number * h + column
    tl.store(to, tl.sum(dw, 0)[None, :], column < h)
    if CENTRED:
        tl.store(to + tl.num_programs(0).to(tl.int64) * h, tl.sum(db, 0)[None, :], column < h)


@triton_kernel
def _wide_slope_kernel(
    g_ptr, x_ptr, w_ptr, stats_ptr, dx_ptr, rows, h,
    CENTRED: tl.constexpr, DOUBLE: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """dx of a row, whose g and x are read twice."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) + tl.arange(0, 1)[:, None]
    lane = tl.arange(0, COLUMNS)[None, :]
    sums = tl.zeros([1, COLUMNS], kind)
    products = tl.zeros([1, COLUMNS], kind)
    for start in range(0, h, COLUMNS):
        column = start + lane
        at, inside = row * h + column, (row < rows) & (column < h)
        normal, rstd = _normal(x_ptr, stats_ptr, row, rows, at, inside, CENTRED, kind)
        g = tl.load(g_ptr + at, inside, other=0).to(kind)
        if w_ptr is not None:
            g *= tl.load(w_ptr + column, column < h, other=0).to(kind)
        sums += g
        products += g * normal
    slope = tl.sum(products, 1)[:, None] / h
    level = tl.sum(sums, 1)[:, None] / h
    for start in range(0, h, COLUMNS):
        column = start + lane
        at, inside = row * h + column, (row < rows) & (column < h)
        normal, rstd = _normal(x_ptr, stats_ptr, row, rows, at, inside, CENTRED, kind)
        g = tl.load(g_ptr + at, inside, other=0).to(kind)
        if w_ptr is not None:
            g *= tl.load(w_ptr + column, column < h, other=0).to(kind)
        dx = g - normal * slope
        if CENTRED:
            dx -= level
        tl.store(dx_ptr + at, (dx * rstd).to(dx_ptr.dtype.element_ty), inside)


@triton_kernel
def _add_up_kernel(sums_ptr, out_ptr, programs, h, COLUMNS: tl.constexpr):
    """sums (k, programs, h) -> out (k, h), always in the same order."""
    which = tl.program_id(1).to(tl.int64)
    column = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    total = tl.zeros([COLUMNS, COLUMNS], sums_ptr.dtype.element_ty)
    for start in range(0, programs, COLUMNS):
        row = start + tl.arange(0, COLUMNS)[:, None]
        at = (which * programs + row) * h + column
        total += tl.load(sums_ptr + at, (row < programs) & (column < h), other=0)
    total = tl.sum(total, 0)[None, :].to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + which * h + column, total, column < h)


def cut(
    rows: int, h: int, double: bool, centred: bool, back: bool = False
) -> tuple[bool, dict[str, Any]]:  # fmt: skip
    """For rows of h numbers: whether they are wide, and a kernel's constants."""
    wide = h > (WIDEST // 4 if double else WIDEST)
    block = BLOCK // (1 + double)
    columns = block if wide else next_power_of_2(h)
    tall = 1 if wide else min(max(1, block // columns), next_power_of_2(rows))
    warps = min(16, max(4, tall * columns * (1 + double) // 512))
    if back and warps == 16:
        warps = 32  # backward holds five arrays of a row: at 16 numbers a thread some would spill
    constants = {"CENTRED": centred, "DOUBLE": double, "ROWS": tall, "COLUMNS": columns}
    return wide, {**constants, "num_warps": warps}


def forward(x, weight, bias, eps, centred):
    """x (n, h) -> y (n, h) and stats (n,), centred (2, n), in float32 or, of float64, float64."""
    n, h = x.shape
    x, weight, bias = map(contiguous, (x, weight, bias))
    wide, constants = cut(n, h, x.dtype == xp.float64, centred)
    kind = xp.float64 if constants["DOUBLE"] else xp.float32
    y, stats = xp.empty_like(x), xp.empty_like(x, shape=(2, n) if centred else n, dtype=kind)
    kernel = _wide_forward_kernel if wide else _forward_kernel
    grid = (-(-n // constants["ROWS"]),)
    kernel[grid](x, weight, bias, y, stats, n, h, eps=float(eps), **constants)
    return y, stats


def backward(g, x, weight, stats, centred):
    """dx in g's shape, and the cotangents of weight and, centred, of bias: (1 or 2, h)."""
    n, h = x.shape
    g, x, weight = map(contiguous, (g, x, weight))
    dx = xp.empty_like(x, shape=g.shape)
    wide, constants = cut(n, h, x.dtype == xp.float64, centred, back=True)
    if wide:
        _wide_slope_kernel[(n,)](g, x, weight, stats, dx, n, h, **constants)
    tall, across = constants["ROWS"], -(-h // constants["COLUMNS"])
    share = -(-n // (tall * max(1, PROGRAMS // across))) * tall
    programs = -(-n // share)
    sums = xp.empty_like(stats, shape=(1 + centred, programs, h))
    _backward_kernel[programs, across](
        g, x, weight, stats, dx, sums, n, h, share,
        SLOPE=not wide, **constants,
    )  # fmt: skip
    return dx, added_up(sums, x)


def added_up(sums, x):
    """Partial sums (k, programs, h) -> (k, h), of the dtype of x."""
    k, programs, h = sums.shape
    out = xp.empty_like(x, order="C", shape=(k, h))
    _add_up_kernel[-(-h // COLUMNS_ADDED), k](sums, out, programs, h, COLUMNS=COLUMNS_ADDED)
    return out
