"""Rows of a table by index, and the sum of cotangents back into the table.

np.add.at adds row after row through a slow general path. A row that is picked once is a plain
assignment. Those picked more often are sorted by index, so that equal ones are neighbours: each
round adds every second one of a run to the one before it, so log2(most repeats) rounds of
whole-array additions do, in the order of a tree. In Triton a program sums the run of one row of the
table, a block of its columns; no atomic additions, so it is the same at every run. Memory traffic:
g is read once, the table written once, beside the sorted order and where its runs start.

While a CUDA graph is captured it goes without the sort, which the library may refuse there: a
program for each row of g looks whether its index comes up before, and if it does not, adds all
rows of that index. That reads the n indices n times, from cache, and is as deterministic.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from .capture import capturing
from .dispatch import dispatched
from .launch import contiguous, next_power_of_2, triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

WIDE, MANY = 16, 1 << 15  # numbers a row, and in all, from which runs are faster than np.add.at
RUN, BLOCK = 8, 256  # rows of g, and columns, that a program loads together: 16 a thread of 4 warps
SEEN = 1024  # indices that a program looks at together: 8 a thread


def naive_backward(g: xp.ndarray, index: xp.ndarray, rows: int) -> xp.ndarray:
    """g (n, h), index (n,) -> (rows, h), one row at a time."""
    table = xp.zeros_like(g, shape=(rows, g.shape[1]))
    xp.add.at(table, index, g)
    return table


def forward(table: xp.ndarray, index: xp.ndarray) -> xp.ndarray:
    """table (rows, h), index (...) from 0 to rows - 1 -> (..., h)."""
    if not table.flags.c_contiguous:
        return table[index]
    return table.take(index.astype(xp.intp, copy=False), axis=0)  # faster than table[index]


@dispatched
def backward(g: xp.ndarray, index: xp.ndarray, rows: int) -> xp.ndarray:
    """g (n, h), index (n,) -> (rows, h).

    Temporary memory: rows of g that share an index, one and a half times; six integers a row.
    """
    table = xp.zeros((rows, g.shape[1]), g.dtype)
    table[index] = g  # where an index repeats one of them stays, until their sum replaces it
    small = index.astype(xp.min_scalar_type(max(rows - 1, 0)))  # 16 bits: sorted by their digits
    order = xp.argsort(small, kind="stable")
    place = _place_in_run(small[order])
    if place.any():
        again = (place > 0) | xp.append(place[1:] > 0, False)
        order, place = order[again], place[again]
        table[index[order[place == 0]]] = _sums_of_runs(g, order, place)
    return table


def _place_in_run(index: xp.ndarray) -> xp.ndarray:
    """0, 1, 2, … along each run of equal neighbours."""
    place = xp.arange(len(index))
    first = xp.ones(len(index), bool)
    first[1:] = index[1:] != index[:-1]
    return place - xp.maximum.accumulate(xp.where(first, place, 0))


def _sums_of_runs(g: xp.ndarray, order: xp.ndarray, place: xp.ndarray) -> xp.ndarray:
    """The sums of runs of rows of g; `order` lists the rows, `place` counts along each run."""
    while place.any():
        even, odd = xp.flatnonzero(place % 2 == 0), xp.flatnonzero(place % 2)
        pairs = g.take(order[even], axis=0)
        pairs[odd - 1 - xp.arange(len(odd))] += g.take(order[odd], axis=0)
        g, order, place = pairs, xp.arange(len(pairs)), place[even] // 2
    return g


backward.version("naive")(naive_backward)


def put_back(g: xp.ndarray, index: tuple, shape: tuple) -> xp.ndarray:
    """The transpose of x[index] for x of a shape: elements picked twice get both cotangents."""
    at = [
        k for k, part in enumerate(index) if not (isinstance(part, slice) and part == slice(None))
    ]
    if len(at) == 1 and isinstance(index[at[0]], xp.ndarray):
        lead, i, n = math.prod(shape[: at[0]]), index[at[0]], shape[at[0]]
        width = math.prod(shape) // max(n, 1)
        if xp.on_gpu(g) or (width >= WIDE and g.size >= MANY):
            rest = width // max(lead, 1)
            rows = g.reshape(lead, i.size, rest).swapaxes(0, 1).reshape(i.size, width)
            table = backward(rows, i.reshape(-1) % max(n, 1), n)
            return table.reshape(n, lead, rest).swapaxes(0, 1).reshape(shape)
    whole = xp.zeros_like(g, order="C", shape=shape)
    xp.add.at(whole, index, g)
    return whole


# The same on a GPU: a row of the table and a block of its columns a program


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
