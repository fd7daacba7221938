"""Pooling: the largest number, or the mean, of each window of a plane.

The ladder, x (n, c, h, w) of b bytes a number, windows of k places:

- formula: a place in all windows at a time, for the maximum; the mean is linear and separates into
  rows and columns, so it is a product with two matrices, (down) x (across)ᵀ. The maximum moves 5
  times the bytes of y for each place, forward and backward.
- loop: a plane stays in the cache until all its windows are done. Forward reads x and writes y,
  and a byte for each window: the number of the place that was the largest. Backward reads g and
  these bytes and writes dx. The mean's loop skips what the matrices multiply by 0.
- tile program: a block of windows, held by some lines of y. Each number of x is loaded once for
  each window that holds it, from the cache after the first time, so memory moves the loop's bytes.
  Backward of the maximum is a block of dx: each number adds up what the windows that hold it send
  there. No atomic additions, so it is the same at every run.

In a product an infinity or a NaN is multiplied by 0 and spoils all windows of its row and column.
If that happens, the formula finds the windows that really contain one. (On a GPU it does not: it
would have to wait for the answer.) Loop and tile program multiply by no such 0.
"""

from __future__ import annotations

import functools
import math
from typing import Any

from numpy import uint8

from . import arrays as xp
from .dispatch import formula
from .launch import blocks, contiguous, next_power_of_2, real, triton_kernel
from .loops import Bytes, F, Out, OutBytes, OutInt, helper, loop
from .windows import Windows, fit, split

tl: Any = None  # Triton's language, once a kernel is launched

LOWEST = -math.inf
BLOCK = 1024  # numbers a program: 8 a thread
TAPS = 64  # numbers of a row that a program adds up together, at most


# The formula


@formula
def max_forward(x: xp.ndarray, win: Windows, size: tuple) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, c, h, w) -> the largest (n, c, *size), and the number of its place (n · c, *size).

    The first of equal numbers counts; a NaN is larger than all others. Temporary memory of the
    loop: a plane with its padding.
    """
    shape, x = x.shape, x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    whole, ((_, first), *taps) = _padded(x, win, size, _least(x.dtype)), _taps(win, size)
    kind = xp.min_scalar_type(win.kernel[0] * win.kernel[1])
    y, which = whole[first], xp.zeros_like(x, shape=(len(x), *size), dtype=kind)
    for number, at in taps:
        which = xp.where((whole[at] > y) | xp.isnan(whole[at]), kind.type(number), which)
        y = xp.maximum(y, whole[at])
    return y.reshape(*shape[:2], *size), which


@formula
def max_backward(g: xp.ndarray, which: xp.ndarray, shape: tuple, win: Windows) -> xp.ndarray:
    """g (n, c, *size) -> the cotangent of x, of `shape`: each goes to what was largest."""
    g, size = g.reshape(which.shape), which.shape[1:]
    whole = _padded(xp.zeros_like(g, shape=(len(g), *shape[2:])), win, size, 0)
    for number, at in _taps(win, size):
        whole[at] += xp.where(which == number, g, 0)
    return _inside(whole, win, (len(g), *shape[2:])).reshape(shape)


@formula
def mean(x: xp.ndarray, down: xp.ndarray, across: xp.ndarray) -> xp.ndarray:
    """x (n, c, h, w), down (ho, h), across (wo, w) -> down x acrossᵀ (n, c, ho, wo).

    The transposed matrices lead back: they take g to dx.
    """
    down, across = xp.at_home_of(x, down), xp.at_home_of(x, across)
    y = _product(x, down, across)
    return y if xp.on_gpu(y) or xp.isfinite(y).all() else _with_infinities(x, down, across)


def _taps(win: Windows, size: tuple) -> list[tuple[int, tuple]]:
    """(number, index) for every place in the window: what all windows see there."""
    return [(number, at) for number, (_, at) in enumerate(win.taps(size))]


def _padded(x: xp.ndarray, win: Windows, size: tuple, fill: float) -> xp.ndarray:
    """Planes (p, h, w) as large as the windows reach; x itself where nothing is added."""
    parts = zip(x.shape[1:], win.padding, win.reach(), win.stride, size)
    h, w = (max(n + sum(pad), s * (m - 1) + reach) for n, pad, reach, s, m in parts)
    if (h, w) == x.shape[1:]:
        return x
    whole = xp.full_like(x, fill, order="C", shape=(len(x), h, w))
    _inside(whole, win, x.shape)[...] = x
    return whole


def _inside(whole: xp.ndarray, win: Windows, shape: tuple) -> xp.ndarray:
    (top, _), (left, _) = win.padding
    return whole[:, top : top + shape[1], left : left + shape[2]]


def _least(dtype: xp.dtype) -> float:
    """The smallest number of a dtype, which pads the borders."""
    return int(xp.iinfo(dtype).min) if dtype.kind in "iu" else -xp.inf


def _with_infinities(x, down, across):
    inside = (down != 0).astype(x.dtype), (across != 0).astype(x.dtype)
    has = lambda found: _product(found.astype(x.dtype), *inside) > 0
    high, low = has(x == xp.inf), has(x == -xp.inf)
    y = _product(xp.where(xp.isfinite(x), x, 0), down, across)
    y[high], y[low] = xp.inf, -xp.inf
    y[has(xp.isnan(x)) | (high & low)] = xp.nan
    return y


def _product(x, down, across):
    n, c, h, w = x.shape
    narrow = xp.matmul(x.reshape(n * c * h, w), across.T).reshape(n, c, h, len(across))
    return xp.matmul(down, narrow)


# The loop


@helper()
def larger(seen, number, best, place):
    """Where seen is larger, or NaN: best = seen, place = number."""
    for c in range(len(best)):
        value, top, old = seen[c], best[c], place[c]  # all read first: then it is vectorised
        new = (value > top) | (value != value)
        best[c] = value if new else top
        place[c] = number if new else old


@loop
def max_windows(
    x: F[:, :, ::1], kh: int, kw: int, dh: int, dw: int, top: int, left: int, line: Out[::1],
    parts: Out[:, :, :, ::1], y: Out[:, :, ::1], which: OutBytes[:, :, ::1],
):  # fmt: skip
    # parts (sh, sw, …) is for `split`
    (sh, sw), (planes, ho) = parts.shape[:2], y.shape[:2]
    for k in range(planes):
        split(x[k], -top, left, LOWEST, line, parts)
        y[k], which[k] = LOWEST, 0
        for i in range(kh):
            for j in range(kw):
                seen, number = parts[i * dh % sh, j * dw % sw], uint8(i * kw + j)
                down, across = i * dh // sh, j * dw // sw
                for r in range(ho):
                    larger(seen[down + r, across:], number, y[k, r], which[k, r])


@loop
def max_of_fours(x: F[:, :, ::1], y: Out[:, :, ::1], which: OutBytes[:, :, ::1]):
    # windows of 2 x 2 beside each other, the usual ones: read where they lie, 10 times as fast
    planes, ho, wo = y.shape
    for k in range(planes):
        for r in range(ho):
            above, below = x[k, 2 * r], x[k, 2 * r + 1]
            largest, place = y[k, r], which[k, r]
            for c in range(wo):
                best, number = above[2 * c], uint8(0)
                for_1, for_2, for_3 = above[2 * c + 1], below[2 * c], below[2 * c + 1]
                new = (for_1 > best) | (for_1 != for_1)
                best, number = for_1 if new else best, uint8(1) if new else number
                new = (for_2 > best) | (for_2 != for_2)
                best, number = for_2 if new else best, uint8(2) if new else number
                new = (for_3 > best) | (for_3 != for_3)
                best, number = for_3 if new else best, uint8(3) if new else number
                largest[c], place[c] = best, number


@loop
def max_slope_windows(
    g: F[:, :, ::1], which: Bytes[:, :, ::1], kw: int, sh: int, sw: int, dh: int, dw: int, top: int,
    left: int, dx: Out[:, :, ::1],
):  # fmt: skip
    planes, ho, wo = g.shape
    h, w = dx.shape[1:]
    for k in range(planes):
        dx[k] = 0.0
        for r in range(ho):
            for c in range(wo):
                i, j = which[k, r, c] // kw, which[k, r, c] % kw
                y, x = r * sh + i * dh - top, c * sw + j * dw - left
                if 0 <= y < h and 0 <= x < w:
                    dx[k, y, x] += g[k, r, c]


@loop
def max_slope_of_fours(g: F[:, :, ::1], which: Bytes[:, :, ::1], dx: Out[:, :, ::1]):
    planes, ho, wo = g.shape
    for k in range(planes):
        for r in range(ho):
            above, below = dx[k, 2 * r], dx[k, 2 * r + 1]
            into, place = g[k, r], which[k, r]
            for c in range(wo):
                above[2 * c] = into[c] if place[c] == 0 else 0.0
                above[2 * c + 1] = into[c] if place[c] == 1 else 0.0
            for c in range(wo):
                below[2 * c] = into[c] if place[c] == 2 else 0.0
                below[2 * c + 1] = into[c] if place[c] == 3 else 0.0
            above[2 * wo :], below[2 * wo :] = 0.0, 0.0  # beside the last window
        dx[k, 2 * ho :] = 0.0


@helper()
def bands(matrix, starts, stops):
    """Where each row has its first number that is not 0, and the one after its last."""
    for i in range(len(matrix)):
        starts[i], stops[i] = 0, 0
        for j in range(matrix.shape[1]):
            if matrix[i, j] != 0.0:
                starts[i] = starts[i] if stops[i] > 0 else j
                stops[i] = j + 1


@loop
def band_products(
    x: F[:, :, ::1], down: F[:, ::1], across: F[:, ::1], rows: OutInt[:, ::1],
    columns: OutInt[:, ::1], weights: Out[:, ::1], line: Out[::1], y: Out[:, :, ::1],
):  # fmt: skip
    # rows (2, ho), columns (2, wo), weights (2, wo), line (w)
    planes, ho, wo = y.shape
    bands(down, rows[0], rows[1])
    bands(across, columns[0], columns[1])
    # windows of 2 x 2, or their transpose: with vector instructions, 3 times as fast
    two_each, one_for_two = True, True
    for c in range(wo):
        first, last = columns[0, c], columns[1, c]
        two_each = two_each and first == 2 * c and last == 2 * c + 2
        one_for_two = one_for_two and first == c // 2 and last == first + 1
        if last > first:
            weights[0, c], weights[1, c] = across[c, first], across[c, last - 1]
    one_for_two = one_for_two and wo % 2 == 0
    left, right = weights[0], weights[1]
    for k in range(planes):
        for r in range(ho):
            first, last, out = rows[0, r], rows[1, r], y[k, r]
            if two_each and last - first == 2:
                a, b, source, below = (
                    down[r, first],
                    down[r, first + 1],
                    x[k, first],
                    x[k, first + 1],
                )
                for c in range(wo):
                    upper = left[c] * source[2 * c] + right[c] * source[2 * c + 1]
                    out[c] = a * upper + b * (left[c] * below[2 * c] + right[c] * below[2 * c + 1])
            elif one_for_two and last - first == 1:
                a, source = down[r, first], x[k, first]
                for c in range(wo // 2):
                    out[2 * c] = left[2 * c] * (a * source[c])
                    out[2 * c + 1] = left[2 * c + 1] * (a * source[c])
            else:
                line[:] = 0.0
                for i in range(first, last):
                    a, source = down[r, i], x[k, i]
                    for j in range(len(line)):
                        line[j] += a * source[j]
                for c in range(wo):
                    total = 0.0
                    for j in range(columns[0, c], columns[1, c]):
                        total += across[c, j] * line[j]
                    out[c] = total


@max_forward.version("numba")
def _max_forward_loop(x, win, size):
    (n, c, h, w), (kh, kw), (sh, sw), (dh, dw) = x.shape, win.kernel, win.stride, win.dilation
    if kh * kw > 256:
        return max_forward.formula(x, win, size)
    y, planes = xp.empty_like(x, order="C", shape=(n, c, *size)), x.reshape(n * c, h, w)
    which = xp.empty((n * c, *size), uint8)
    if _in_fours(win, (h, w), size):
        max_of_fours(planes, y.reshape(which.shape), which)
        return y, which
    (top, _), (left, _) = win.padding
    down, pitch = size[0] + (kh - 1) * dh // sh, size[1] + (kw - 1) * dw // sw
    parts = xp.empty_like(x, order="C", shape=(sh, sw, down, pitch))
    line = xp.empty_like(x, order="C", shape=sw * pitch)
    by = kh, kw, dh, dw, top, left
    max_windows(planes, *by, line, parts, y.reshape(which.shape), which)
    return y, which


@max_backward.version("numba")
def _max_backward_loop(g, which, shape, win):
    if which.dtype != uint8:
        return max_backward.formula(g, which, shape, win)
    g, dx = g.reshape(which.shape), xp.empty_like(g, order="C", shape=shape)
    planes = dx.reshape(len(which), *shape[2:])
    if _in_fours(win, shape[2:], which.shape[1:]):
        max_slope_of_fours(g, which, planes)
    else:
        (top, _), (left, _) = win.padding
        max_slope_windows(g, which, win.kernel[1], *win.stride, *win.dilation, top, left, planes)
    return dx


def _in_fours(win: Windows, plane: tuple, size: tuple) -> bool:
    """Whether windows of 2 x 2 lie beside each other, and all of them whole in the plane."""
    inside = 2 * size[0] <= plane[0] and 2 * size[1] <= plane[1]
    return win == Windows((2, 2), (2, 2)) and inside


@mean.version("numba")
def _mean_loop(x, down, across):
    (n, c, h, w), size = x.shape, (len(down), len(across))
    y = xp.empty_like(x, order="C", shape=(n, c, *size))
    rows, columns = xp.empty((2, size[0]), xp.int64), xp.empty((2, size[1]), xp.int64)
    line, weights = (xp.empty_like(x, order="C", shape=s) for s in (w, (2, size[1])))
    down, across = xp.ascontiguousarray(down), xp.ascontiguousarray(across)
    by = down, across, rows, columns, weights, line
    band_products(x.reshape(n * c, h, w), *by, y.reshape(n * c, *size))
    return y


# The tile program: a block of windows, some lines of the plane of windows


@triton_kernel
def _max_kernel(
    x_ptr, y_ptr, which_ptr, lines, h, w, ho, wo, LEAST: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x (planes, h, w), y and which (planes, ho, wo), whose lines are planes · ho."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (line < lines) & (column < wo)
    plane, down, across = (line // ho).to(tl.int64), line % ho * SH - TOP, column * SW - LEFT
    own: tl.constexpr = x_ptr.dtype.element_ty
    kind: tl.constexpr = tl.float32 if own.primitive_bitwidth == 16 else own  # holds all of them
    best = tl.full([ROWS, COLUMNS], LEAST, kind)
    place = tl.zeros([ROWS, COLUMNS], tl.int32)
    for number in tl.range(0, KH * KW, loop_unroll_factor=4):
        i, j = down + number // KW * DH, across + number % KW * DW
        there = inside & (i >= 0) & (i < h) & (j >= 0) & (j < w)
        seen = tl.load(x_ptr + (plane * h + i) * w + j, there, other=LEAST).to(kind)
        new = (seen > best) | (seen != seen)
        best = tl.where(new, seen, best)
        place = tl.where(new, number, place)
    at = line.to(tl.int64) * wo + column
    tl.store(y_ptr + at, best.to(own), inside)
    tl.store(which_ptr + at, place.to(which_ptr.dtype.element_ty), inside)


@triton_kernel
def _max_slope_kernel(
    g_ptr, which_ptr, dx_ptr, lines, h, w, ho, wo, DOUBLE: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """g and which (planes, ho, wo), dx (planes, h, w), whose lines are planes · h."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside = (line < lines) & (column < w)
    plane, y, x = (line // h).to(tl.int64), line % h + TOP, column + LEFT
    total = tl.zeros([ROWS, COLUMNS], tl.float64 if DOUBLE else tl.float32)
    DOWN: tl.constexpr = (KH - 1) * DH // SH + 1  # windows that may hold a number
    ACROSS: tl.constexpr = (KW - 1) * DW // SW + 1
    for back in tl.range(0, DOWN * ACROSS, loop_unroll_factor=4):  # from the last window on
        r, c = y // SH - back // ACROSS, x // SW - back % ACROSS
        i, j = y - r * SH, x - c * SW  # rows and columns from the window's first
        there = inside & (r >= 0) & (r < ho) & (c >= 0) & (c < wo)
        there &= (i % DH == 0) & (i < KH * DH) & (j % DW == 0) & (j < KW * DW)
        at = (plane * ho + r) * wo + c
        which = tl.load(which_ptr + at, there, other=0).to(tl.int32)
        largest = there & (which == i // DH * KW + j // DW)
        total += tl.load(g_ptr + at, largest, other=0).to(total.dtype)
    tl.store(dx_ptr + line.to(tl.int64) * w + column, total.to(dx_ptr.dtype.element_ty), inside)


@triton_kernel
def _bands_kernel(matrix_ptr, bands_ptr, n, down, across, BLOCK: tl.constexpr):
    """For each row of a matrix (rows, n) with strides down and across, bands (2, rows) gets the
    place of the first number that is not 0, and the place after the last."""
    row = tl.program_id(0)
    first = tl.full([BLOCK], n, tl.int32)
    stop = tl.zeros([BLOCK], tl.int32)
    for start in range(0, n, BLOCK):
        at = start + tl.arange(0, BLOCK)
        weight = tl.load(matrix_ptr + row.to(tl.int64) * down + at * across, at < n, other=0)
        first = tl.where((weight != 0) & (at < first), at, first)
        stop = tl.where(weight != 0, at + 1, stop)
    tl.store(bands_ptr + row, tl.min(first, 0))
    tl.store(bands_ptr + tl.num_programs(0) + row, tl.max(stop, 0))


@triton_kernel
def _mean_kernel(
    x_ptr, down_ptr, across_ptr, rows_ptr, columns_ptr, y_ptr, lines, h, w, ho, wo,
    down_row, down_column, across_row, across_column, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr, TAPS: tl.constexpr,
):  # fmt: skip
    """x (planes, h, w), y (planes, ho, wo), down (ho, h) with bands rows (2, ho), across (wo, w)
    with bands columns (2, wo); the matrices with their strides."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    plane, row = (line // ho).to(tl.int64), line % ho
    tap = tl.arange(0, TAPS)[None, None, :]
    top = tl.load(rows_ptr + row, line < lines, other=0)
    height = tl.load(rows_ptr + ho + row, line < lines, other=0) - top
    left = tl.load(columns_ptr + column, column < wo, other=0)
    width = tl.load(columns_ptr + wo + column, column < wo, other=0) - left
    total = tl.zeros([ROWS, COLUMNS], kind)
    for i in range(tl.max(height)):
        at = ((plane * h + top + i) * w + left)[:, :, None]
        part = tl.zeros([ROWS, COLUMNS], kind)
        for j in range(0, tl.max(width), TAPS):
            inner = j + tap < width[:, :, None]  # (1, COLUMNS, TAPS)
            place = column[:, :, None] * across_row + (left[:, :, None] + j + tap) * across_column
            weight = tl.load(across_ptr + place, inner, other=0).to(kind)
            x = tl.load(x_ptr + at + j + tap, (i < height)[:, :, None] & inner, other=0).to(kind)
            part += tl.sum(weight * x, 2)
        place = row * down_row + (top + i) * down_column
        total += tl.load(down_ptr + place, i < height, other=0).to(kind) * part
    inside = (line < lines) & (column < wo)
    tl.store(y_ptr + line.to(tl.int64) * wo + column, total.to(y_ptr.dtype.element_ty), inside)


@max_forward.version("triton")
def _max_forward_triton(x, win, size):
    if x.dtype.kind not in "iu" and not real(x):
        return max_forward.plain(x)(x, win, size)
    (n, c, h, w), x, (ho, wo) = x.shape, contiguous(x), size
    y = xp.empty_like(x, shape=(n, c, ho, wo))
    numbers = xp.min_scalar_type(win.kernel[0] * win.kernel[1])
    which = xp.empty_like(x, numbers, shape=(n * c, ho, wo))
    grid, shape = blocks(n * c * ho, wo, BLOCK)
    by = {"LEAST": _least(x.dtype), **win.constants(), **shape}
    _max_kernel[grid](x, y, which, n * c * ho, h, w, ho, wo, **by)
    return y, which


@max_backward.version("triton")
def _max_backward_triton(g, which, shape, win):
    if not real(g):
        return max_backward.plain(g)(g, which, shape, win)
    (n, c, h, w), (ho, wo), g = shape, which.shape[1:], contiguous(g)
    dx, (grid, block) = xp.empty_like(g, shape=shape), blocks(n * c * h, w, BLOCK)
    by = {"DOUBLE": g.dtype == xp.float64, **win.constants(), **block}
    _max_slope_kernel[grid](g, contiguous(which), dx, n * c * h, h, w, ho, wo, **by)
    return dx


@mean.version("triton")
def _mean_triton(x, down, across):
    if not real(x, down, across):
        return mean.plain(x)(x, down, across)
    (n, c, h, w), x, ho, wo = x.shape, contiguous(x), len(down), len(across)
    down, across = xp.at_home_of(x, down), xp.at_home_of(x, across)
    dtype = xp.promote_types(x.dtype, xp.promote_types(down.dtype, across.dtype))
    y = xp.empty_like(x, dtype, shape=(n, c, ho, wo))
    taps = min(TAPS, next_power_of_2(-(-w // max(wo, 1))))
    grid, shape = blocks(n * c * ho, wo, BLOCK // taps)
    _mean_kernel[grid](
        x, down, across, _bands(down), _bands(across), y, n * c * ho, h, w, ho, wo, *_steps(down),
        *_steps(across), DOUBLE=dtype == xp.float64, **shape, TAPS=taps,
    )  # fmt: skip
    return y


def _bands(matrix):
    (rows, n), bands = matrix.shape, xp.empty_like(matrix, xp.int32, shape=(2, len(matrix)))
    block = min(BLOCK, next_power_of_2(n))
    _bands_kernel[(rows,)](matrix, bands, n, *_steps(matrix), BLOCK=block)
    return bands


def _steps(matrix):
    """Its strides in numbers, not in bytes."""
    return (s // matrix.itemsize for s in matrix.strides)


# The matrices of means


def mean_matrix(n: int, starts: xp.ndarray, stops: xp.ndarray, sizes: xp.ndarray, dtype):
    """(windows, n): row i has 1/sizes[i] from starts[i] to stops[i], and 0 elsewhere."""
    place = xp.arange(n)
    inside = (place >= starts[:, None]) & (place < stops[:, None])
    matrix = (inside / sizes[:, None]).astype(dtype)
    matrix.flags.writeable = False  # it is cached
    return matrix


@functools.lru_cache(maxsize=64)
def sliding(n: int, axis: int, win: Windows, ceil_mode: bool, include_pad: bool, divisor, dtype):
    """The matrix of sliding means over an axis of n; a last window may leave the padding."""
    low, high = win.padding[axis]
    count = fit(n, win.kernel[axis], win.stride[axis], (low, high), ceil_mode)
    starts = xp.arange(count) * win.stride[axis] - low
    stops = xp.minimum(starts + win.kernel[axis], n + high)
    seen = xp.minimum(stops, n) - xp.maximum(starts, 0)
    sizes = xp.full(len(starts), divisor) if divisor else stops - starts if include_pad else seen
    return mean_matrix(n, starts, stops, sizes, dtype)


@functools.lru_cache(maxsize=64)
def adaptive(n: int, count: int | None, dtype):
    """The matrix of `count` (or n) means over windows that cover an axis of n evenly."""
    count = n if count is None else count
    i = xp.arange(count)
    starts, stops = i * n // max(count, 1), -((i + 1) * -n // max(count, 1))
    return mean_matrix(n, starts, stops, stops - starts, dtype)


def integer_mean(x: xp.ndarray, down: xp.ndarray, across: xp.ndarray) -> xp.ndarray:
    """The mean of integers: exact sums divided by their counts, rounded towards 0 as in C++."""
    inside = [(m != 0).astype(x.dtype) for m in (down, across)]
    counts = [xp.rint(i.sum(1) / m.sum(1)).astype(x.dtype) for i, m in zip(inside, (down, across))]
    total, count = mean(x, *inside), counts[0][:, None] * counts[1]
    return xp.abs(total) // xp.abs(count) * (xp.sign(total) * xp.sign(count))
