"""Resampling along the last axes: the element nearest to each place, or a line between two of them.

One axis after the other, for they may be taken in any order; the arrays then are (outer, n, inner),
and a place is a row of `inner` numbers. The ladder, for n elements and m places along an axis:

- formula: look-ups and whole arrays: forward moves 2m for the nearest and 15m numbers for lines.
  Backward adds every cotangent to the elements that were read, one number at a time.
- loop: forward reads elements and writes places, n + m numbers; backward reads places and adds to
  elements that stay in the cache, n + m numbers too.
- tile program: a block of places, which load their two elements. Backward is a block of elements:
  the indices grow, so the places that read an element lie side by side, and it adds them up in
  order. No atomic additions. Memory moves the loop's n + m numbers: what is loaded twice is in the
  cache.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from . import arrays as xp
from .dispatch import formula
from .launch import blocks, real, triton_kernel
from .loops import F, Int, Out, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 1024  # numbers a program: 8 a thread


class Taps(NamedTuple):
    """Along an axis of `size`: y[i] = (1 - weight[i])·x[low[i]] + weight[i]·x[high[i]].

    Without weights y[i] = x[low[i]]. Both indices grow with i, and are NumPy arrays.
    """

    size: int
    low: Any
    high: Any = None
    weight: Any = None


def nearest(n: int, m: int, scale: float | None, dtype: Any, exact: bool) -> Taps:
    """m places over n elements: i·scale rounded down, as PyTorch computes it in `dtype`.

    `exact`: m = n takes every element once, and m = 2n twice, whatever the scale.
    """
    i = xp.arange(m)
    if exact and m in (n, 2 * n):
        return Taps(n, i // (m // n))
    step = dtype.type(n) / dtype.type(m) if scale is None else dtype.type(1 / scale)
    return Taps(n, xp.minimum((i.astype(dtype) * step).astype(xp.int64), n - 1))


def linear(n: int, m: int, scale: float | None, dtype: Any, align_corners: bool) -> Taps:
    """m places among n elements: from the first to the last, or at the centres of m equal parts."""
    i = xp.arange(m)
    if n == m:
        return Taps(n, i, i, xp.zeros(m, dtype))
    if align_corners:
        at = i.astype(dtype) * (dtype.type(n - 1) / dtype.type(max(m - 1, 1)))
    else:
        step = dtype.type(n) / dtype.type(m) if scale is None else dtype.type(1 / scale)
        at = xp.maximum(step * (i.astype(dtype) + dtype.type(0.5)) - dtype.type(0.5), 0)
    low = xp.minimum(at.astype(xp.int64), n - 1)
    return Taps(n, low, xp.minimum(low + 1, n - 1), xp.clip(at - low.astype(dtype), 0, 1))


# The formula


@formula
def forward(x: xp.ndarray, taps: tuple[Taps, ...]) -> xp.ndarray:
    """x (..., *sizes) -> (..., *places), last axis first, so that the other axes move whole rows.

    Temporary memory: the result along one axis.
    """
    for back, one in enumerate(reversed(taps), 1):
        y = x.take(xp.at_home_of(x, one.low), -back)
        if one.weight is not None:
            w = xp.at_home_of(x, one.weight.reshape(-1, *(1,) * (back - 1)))
            y = y * (1 - w) + x.take(xp.at_home_of(x, one.high), -back) * w
        x = y
    return x


@formula
def backward(g: xp.ndarray, taps: tuple[Taps, ...]) -> xp.ndarray:
    """g (..., *places) -> (..., *sizes), the transpose of forward, first axis first.

    Temporary memory: the result along one axis.
    """
    for axis, one in enumerate(taps, g.ndim - len(taps)):
        g = xp.moveaxis(g, axis, 0)
        dx = xp.zeros_like(g, shape=(one.size, *g.shape[1:]))
        low = xp.at_home_of(g, one.low)
        if one.weight is None:
            xp.add.at(dx, low, g)
        else:
            w = xp.at_home_of(g, one.weight.reshape(-1, *(1,) * (g.ndim - 1)))
            xp.add.at(dx, low, g * (1 - w))
            xp.add.at(dx, xp.at_home_of(g, one.high), g * w)
        g = xp.moveaxis(dx, 0, axis)
    return g


# The loop: rows of `inner` numbers along an axis, or single numbers along the last one


@loop
def read_lines(
    x: F[:, :, ::1], low: Int[::1], high: Int[::1], weight: F[::1], y: Out[:, :, ::1]
):  # fmt: skip
    # x (outer, n, inner), y (outer, m, inner); low, high and weight (m,)
    outer, m, inner = y.shape
    for i in range(outer):
        for p in range(m):
            w = weight[p]
            if inner == 1:
                y[i, p, 0] = x[i, low[p], 0] * (1.0 - w) + x[i, high[p], 0] * w
            else:
                a, b, out = x[i, low[p]], x[i, high[p]], y[i, p]
                for j in range(inner):
                    out[j] = a[j] * (1.0 - w) + b[j] * w


@loop
def add_up(
    g: F[:, :, ::1], low: Int[::1], high: Int[::1], weight: F[::1], lines: bool,
    dx: Out[:, :, ::1],
):  # fmt: skip
    # g (outer, m, inner), dx (outer, n, inner); if not lines, high and weight are not read
    outer, m, inner = g.shape
    dx[:] = 0.0
    for i in range(outer):
        for p in range(m):
            if inner == 1:
                if lines:
                    dx[i, low[p], 0] += g[i, p, 0] * (1.0 - weight[p])
                    dx[i, high[p], 0] += g[i, p, 0] * weight[p]
                else:
                    dx[i, low[p], 0] += g[i, p, 0]
            else:
                a, row = dx[i, low[p]], g[i, p]
                if lines:
                    w, b = weight[p], dx[i, high[p]]
                    for j in range(inner):
                        a[j] += row[j] * (1.0 - w)
                    for j in range(inner):
                        b[j] += row[j] * w
                else:
                    for j in range(inner):
                        a[j] += row[j]


@forward.version("numba")
def _forward_loop(x, taps):
    for back, one in enumerate(reversed(taps), 1):
        if one.weight is None:
            x = x.take(one.low, -back)  # one pass as it is
        else:
            flat, y = _along(x, x.ndim - back, len(one.low))
            read_lines(flat, one.low, one.high, one.weight.astype(x.dtype), y)
            x = y.reshape(*x.shape[: x.ndim - back], len(one.low), *x.shape[x.ndim - back + 1 :])
    return x


@backward.version("numba")
def _backward_loop(g, taps):
    for axis, one in enumerate(taps, g.ndim - len(taps)):
        flat, dx = _along(g, axis, one.size)
        lines = one.weight is not None
        high, weight = (one.high, one.weight.astype(g.dtype)) if lines else (one.low, g[:0].ravel())
        add_up(flat, one.low, high, weight, lines, dx)
        g = dx.reshape(*g.shape[:axis], one.size, *g.shape[axis + 1 :])
    return g


def _along(x: xp.ndarray, axis: int, n: int) -> tuple[xp.ndarray, xp.ndarray]:
    """x as (outer, places, inner) around an axis, and an empty array with n places there."""
    outer, inner = math.prod(x.shape[:axis]), math.prod(x.shape[axis + 1 :])
    flat = xp.ascontiguousarray(x).reshape(outer, x.shape[axis], inner)
    return flat, xp.empty_like(flat, shape=(outer, n, inner))


# The tile program: a block of (outer, places · inner)


@triton_kernel
def _lines_kernel(
    x_ptr, low_ptr, high_ptr, weight_ptr, y_ptr, outer, n, m, inner, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """x (outer, n, inner), y (outer, m, inner); low, high and weight (m,)."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    place, there = column // inner, column < m * inner
    low = tl.load(low_ptr + place, there, other=0)
    high = tl.load(high_ptr + place, there, other=0)
    w = tl.load(weight_ptr + place, there, other=0).to(kind)
    inside = (row < outer) & there
    start = x_ptr + row * n * inner + column % inner
    a = tl.load(start + low * inner, inside, other=0).to(kind)
    b = tl.load(start + high * inner, inside, other=0).to(kind)
    y = a * (1 - w) + b * w
    tl.store(y_ptr + row * m * inner + column, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _sums_kernel(
    g_ptr, lows_ptr, highs_ptr, weight_ptr, dx_ptr, outer, m, n, inner, DOUBLE: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """g (outer, m, inner), dx (outer, n, inner). Element i is the lower one of places lows[i] to
    lows[i + 1] - 1, and the higher one of those in highs. Without weights there are no highs."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    element, there = column // inner, column < n * inner
    inside, start = (row < outer) & there, g_ptr + row * m * inner + column % inner
    total = tl.zeros([ROWS, COLUMNS], kind)
    first = tl.load(lows_ptr + element, there, other=0)
    count = tl.load(lows_ptr + element + 1, there, other=0) - first
    for k in range(tl.max(count)):
        g = tl.load(start + (first + k) * inner, inside & (k < count), other=0).to(kind)
        if weight_ptr is not None:
            g *= 1 - tl.load(weight_ptr + first + k, k < count, other=0).to(kind)
        total += g
    if weight_ptr is not None:
        first = tl.load(highs_ptr + element, there, other=0)
        count = tl.load(highs_ptr + element + 1, there, other=0) - first
        for k in range(tl.max(count)):
            g = tl.load(start + (first + k) * inner, inside & (k < count), other=0).to(kind)
            total += g * tl.load(weight_ptr + first + k, k < count, other=0).to(kind)
    tl.store(dx_ptr + row * n * inner + column, total.to(dx_ptr.dtype.element_ty), inside)


@forward.version("triton")
def _forward_triton(x, taps):
    if not real(x) or any(one.weight is None for one in taps):
        return forward.plain(x)(x, taps)  # x.take is one pass as it is
    for back, one in enumerate(reversed(taps), 1):
        axis, m = x.ndim - back, len(one.low)
        flat, y = _along(x, axis, m)
        y = xp.empty_like(y, dtype=xp.promote_types(x.dtype, one.weight.dtype))
        grid, constants = _cut(y)
        by = (xp.at_home_of(x, a) for a in (one.low, one.high, one.weight))
        outer, n, inner = flat.shape
        _lines_kernel[grid](flat, *by, y, outer, n, m, inner, **constants)
        x = y.reshape(*x.shape[:axis], m, *x.shape[axis + 1 :])
    return x


@backward.version("triton")
def _backward_triton(g, taps):
    if not real(g):
        return backward.plain(g)(g, taps)
    for axis, one in enumerate(taps, g.ndim - len(taps)):
        flat, dx = _along(g, axis, one.size)
        grid, constants = _cut(dx)
        lows, highs = (_starts(g, index, one.size) for index in (one.low, one.high))
        weight = None if one.weight is None else xp.at_home_of(g, one.weight)
        outer, m, inner = flat.shape
        _sums_kernel[grid](flat, lows, highs, weight, dx, outer, m, one.size, inner, **constants)
        g = dx.reshape(*g.shape[:axis], one.size, *g.shape[axis + 1 :])
    return g


def _starts(g, index, n):
    """(n + 1,): at i, how many numbers of a growing index are below i."""
    return None if index is None else xp.at_home_of(g, index.searchsorted(range(n + 1)))


def _cut(y):
    """The grid and the constants of a kernel that writes y (outer, places, inner)."""
    outer, places, inner = y.shape
    grid, shape = blocks(outer, places * inner, BLOCK)
    return grid, {"DOUBLE": y.dtype == xp.float64, **shape}
