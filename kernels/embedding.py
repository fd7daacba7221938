"""Rows of a table by index, and the sum of cotangents back into the table.

The ladder, g (n, h) of b bytes a number, a table of as many rows as there are indices:

- formula: np.add.at, which adds row after row through a slow general path: every sum in the table
  is read and written again, 3nhb bytes beside the zeros of the table.
- loop: the rows of g are put in order by their index (a counting sort), then each row of the table
  is the sum of its run, or zeros: g is read once and the table written once.
- tile program: a program sums the run of one row of the table, a block of its columns; the same
  bytes. No atomic additions, so it is the same at every run.

While a CUDA graph is captured the tile program goes without the sort, which the library may refuse
there: a program for each row of g looks whether its index comes up before, and if it does not, adds
all rows of that index. That reads the n indices n times, from cache, and is as deterministic.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from .capture import capturing
from .dispatch import formula
from .elementary import ROWS
from .launch import contiguous, next_power_of_2, triton_kernel
from .loops import F, Int, Out, OutInt, loop

tl: Any = None  # Triton's language, once a kernel is launched

RUN, BLOCK = 8, 256  # rows of g, and columns, that a program loads together: 16 a thread of 4 warps
SEEN = 1024  # indices that a program looks at together: 8 a thread


# The formula


@formula
def forward(table: xp.ndarray, index: xp.ndarray) -> xp.ndarray:
    """table (rows, h), index (...) from 0 to rows - 1 -> (..., h)."""
    return table[index]


@formula
def backward(g: xp.ndarray, index: xp.ndarray, rows: int) -> xp.ndarray:
    """g (n, h), index (n,) -> (rows, h). Temporary memory of the loop: an integer a row of each."""
    table = xp.zeros_like(g, order="C", shape=(rows, g.shape[1]))
    xp.add.at(table, index, g)
    return table


# The loop


@loop
def pick_rows(table: F[:, ::1], index: Int[::1], y: Out[:, ::1]):
    for i in range(len(index)):
        source, into = table[index[i]], y[i]
        for j in range(len(into)):
            into[j] = source[j]


@loop
def sum_runs(
    g: F[:, ::1], index: Int[::1], ends: OutInt[::1], order: OutInt[::1], part: Out[::1],
    table: Out[:, ::1],
):  # fmt: skip
    # ends (rows + 1): order[ends[i - 1] : ends[i]] lists the rows of g that belong to table[i]
    rows, h = table.shape
    ends[:] = 0
    for i in range(len(index)):
        ends[index[i] + 1] += 1
    for i in range(rows):
        ends[i + 1] += ends[i]
    for i in range(len(index)):  # ends[k] is the next free place of run k, at last its end
        order[ends[index[i]]] = i
        ends[index[i]] += 1
    start = 0
    for k in range(rows):
        total, end = table[k], ends[k]
        if start == end:
            total[:] = 0.0
        else:
            first = g[order[start]]
            for j in range(h):
                total[j] = first[j]
        for block in range(start + 1, end, ROWS):
            last = min(block + ROWS, end)
            if last - block == 1:
                row = g[order[block]]
                for j in range(h):
                    total[j] += row[j]
            else:
                part[:] = 0.0
                for place in range(block, last):
                    row = g[order[place]]
                    for j in range(h):
                        part[j] += row[j]
                for j in range(h):
                    total[j] += part[j]
        start = end


@forward.version("numba")
def _forward_loop(table, index):
    if not table.flags.c_contiguous:
        return forward.formula(table, index)
    y = xp.empty_like(table, shape=(*index.shape, table.shape[1]))
    rows = y.reshape(index.size, table.shape[1])
    pick_rows(table, index.astype(xp.int64, copy=False).reshape(-1), rows)
    return y


@backward.version("numba")
def _backward_loop(g, index, rows):
    (n, h), table = g.shape, xp.empty_like(g, order="C", shape=(rows, g.shape[1]))
    index, part = index.astype(xp.int64, copy=False), xp.empty_like(g, order="C", shape=h)
    sum_runs(g, index, xp.empty(rows + 1, xp.int64), xp.empty(n, xp.int64), part, table)
    return table


# The tile program: a row of the table and a block of its columns


@triton_kernel
def _runs_kernel(
    g_ptr, order_ptr, starts_ptr, table_ptr, h, DOUBLE: tl.constexpr, RUN: tl.constexpr,
    COLUMNS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    total = tl.zeros([COLUMNS], tl.float64 if DOUBLE else tl.float32)
    end = tl.load(starts_ptr + row + 1)
    for start in range(tl.load(starts_ptr + row), end, RUN):
        place = start + tl.arange(0, RUN)
        at = tl.load(order_ptr + place, place < end, other=0)[:, None]
        inside = (place < end)[:, None] & (column < h)[None, :]
        total += tl.sum(tl.load(g_ptr + at * h + column, inside, other=0).to(total.dtype), 0)
    tl.store(table_ptr + row * h + column, total.to(table_ptr.dtype.element_ty), column < h)


@triton_kernel
def _first_kernel(
    g_ptr, index_ptr, table_ptr, n, h, rows, DOUBLE: tl.constexpr, SEEN: tl.constexpr,
    RUN: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Row i of g is added, with all others of its index, if it is the first one of it."""
    i = tl.program_id(0)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    row = tl.load(index_ptr + i).to(tl.int64)
    before, start = ((row < 0) | (row >= rows)).to(tl.int32), 0
    while (start < i) & (before == 0):
        at = start + tl.arange(0, SEEN)
        other = tl.load(index_ptr + at, at < i, other=0).to(tl.int64)
        before = tl.sum(((other == row) & (at < i)).to(tl.int32), 0)
        start += SEEN
    total = tl.zeros([COLUMNS], tl.float64 if DOUBLE else tl.float32)
    start = tl.where(before == 0, i, n)
    while start < n:
        at = start + tl.arange(0, SEEN)
        other = tl.load(index_ptr + at, at < n, other=0).to(tl.int64)
        hits = tl.sum(((other == row) & (at < n)).to(tl.int32), 0)
        part = start
        start += SEEN
        while (part < start) & (hits > 0):
            place = part + tl.arange(0, RUN)
            index = tl.load(index_ptr + place, place < n, other=0).to(tl.int64)
            same = (index == row) & (place < n)
            hits -= tl.sum(same.to(tl.int32), 0)
            inside = same[:, None] & (column < h)[None, :]
            where = place.to(tl.int64)[:, None] * h + column
            total += tl.sum(tl.load(g_ptr + where, inside, other=0).to(total.dtype), 0)
            part += RUN
    width = tl.where(before == 0, h, 0)
    out = total.to(table_ptr.dtype.element_ty)
    tl.store(table_ptr + row * h + column, out, column < width)


def _without_sorting(g, index, rows, columns):
    table, (n, h) = xp.zeros_like(g, shape=(rows, g.shape[1])), g.shape
    index = xp.asarray(index, order="C")
    _first_kernel[(n, -(-h // columns))](
        g, index, table, n, h, rows, DOUBLE=g.dtype == xp.float64, SEEN=SEEN, RUN=RUN,
        COLUMNS=columns,
    )  # fmt: skip
    return table


@backward.version("triton")
def _backward_triton(g, index, rows):
    if not len(index):
        return xp.zeros_like(g, shape=(rows, g.shape[1]))
    g, h = contiguous(g), g.shape[1]
    columns = min(BLOCK, next_power_of_2(h))
    if capturing():
        return _without_sorting(g, index, rows, columns)
    order = xp.argsort(index, kind="stable")
    with xp.beside(g):
        starts = xp.searchsorted(index[order], xp.arange(rows + 1))
    table = xp.empty_like(g, shape=(rows, h))
    _runs_kernel[(rows, -(-h // columns))](
        g, order, starts, table, h, DOUBLE=g.dtype == xp.float64, RUN=RUN, COLUMNS=columns
    )
    return table


# Any index


def put_back(g: xp.ndarray, index: tuple, shape: tuple) -> xp.ndarray:
    """The transpose of x[index] for x of a shape: elements picked twice get both cotangents."""
    at = [
        k for k, part in enumerate(index) if not (isinstance(part, slice) and part == slice(None))
    ]
    if len(at) == 1 and isinstance(index[at[0]], xp.ndarray):
        lead, i, n = math.prod(shape[: at[0]]), index[at[0]], shape[at[0]]
        width = math.prod(shape) // max(n, 1)
        rest = width // max(lead, 1)
        rows = g.reshape(lead, i.size, rest).swapaxes(0, 1).reshape(i.size, width)
        table = backward(rows, i.reshape(-1) % max(n, 1), n)
        return table.reshape(n, lead, rest).swapaxes(0, 1).reshape(shape)
    whole = xp.zeros_like(g, order="C", shape=shape)
    xp.add.at(whole, index, g)
    return whole
