"""The pointwise part of one LSTM step (Hochreiter & Schmidhuber 1997), from its gates on.

The ladder: naive, each operation streams its arrays through memory; in NumPy, all passes over one
tile of rows run while it is in cache; in Triton, over one block while it is in registers. Memory
traffic in arrays (n, h): forward reads 4 gates and c, writes 4 gates' values, c' and h'; backward
reads the values, c, c' and two cotangents, and writes those of the gates and of c: 11 and 13.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .dispatch import dispatched
from .launch import triton_kernel
from .pointwise import sigmoid
from .tiles import row_tiles

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 512  # of h a program: 4 a thread of each of a dozen arrays


@dispatched
def forward(a: np.ndarray, c: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """a (n, 4h), before their functions the gates i, f, g, o; c (n, h) -> h', c', the values.

    c' = f · c + i · g, h' = o · tanh c'. Temporary memory is three tiles of ROW_ELEMENTS.
    """
    values = np.empty_like(a, order="C")
    new, state = np.empty_like(c, order="C"), np.empty_like(c, order="C")
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: 1 / (1 + it) is 0
        for rows in row_tiles(*c.shape):
            i, f, g, o = _split(values[rows])
            for k, gate in enumerate(_split(a[rows])):
                if k == 2:
                    np.tanh(gate, out=g)
                else:
                    (i, f, g, o)[k][...] = _sigmoid(gate)
            np.multiply(f, c[rows], out=new[rows])
            new[rows] += i * g
            np.tanh(new[rows], out=state[rows])
            state[rows] *= o
    return state, new, values


@dispatched
def backward(
    dh: np.ndarray, dnew: np.ndarray, values: np.ndarray, c: np.ndarray, new: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Cotangents of h' and c' (n, h), what forward kept, c, c' -> those of a (n, 4h) and c (n, h).

    Temporary memory is six tiles of ROW_ELEMENTS.
    """
    da, dc = np.empty_like(values), np.empty_like(c, order="C")
    for rows in row_tiles(*c.shape):
        parts = _slopes(dh[rows], dnew[rows], _split(values[rows]), c[rows], np.tanh(new[rows]))
        for out, part in zip((*_split(da[rows]), dc[rows]), parts):
            out[...] = part
    return da, dc


@forward.version("naive")
def naive(a, c):
    """The formula, one temporary an operation."""
    i, f, g, o = (np.tanh(x) if k == 2 else 1 / (1 + np.exp(-x)) for k, x in enumerate(_split(a)))
    new = f * c + i * g
    return o * np.tanh(new), new, np.concatenate((i, f, g, o), 1)


@backward.version("naive")
def _backward_naive(dh, dnew, values, c, new):
    *da, dc = _slopes(dh, dnew, _split(values), c, np.tanh(new))
    return np.concatenate(da, 1), dc


def _split(a: np.ndarray) -> list[np.ndarray]:
    """(n, 4h) as four views (n, h)."""
    h = a.shape[1] // 4
    return [a[:, k * h : (k + 1) * h] for k in range(4)]


def _sigmoid(x):
    y = np.empty_like(x, order="C")
    sigmoid(x, y)
    return y


def _slopes(dh, dnew, values, c, t):
    """The cotangents of the four gates and of c, one by one, with t = tanh c'."""
    i, f, g, o = values
    d = dnew + dh * o * (1 - t * t)
    yield d * g * i * (1 - i)
    yield d * c * f * (1 - f)
    yield d * i * (1 - g * g)
    yield dh * t * o * (1 - o)
    yield d * f


# The same on a GPU: a block of one row's units a program


@triton_kernel
def _tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton_kernel
def _cell_kernel(
    a_ptr, c_ptr, values_ptr, new_ptr, state_ptr, h, DOUBLE: tl.constexpr, BLOCK: tl.constexpr
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at = unit < h, row * 4 * h + unit
    i = tl.sigmoid(tl.load(a_ptr + at, inside, other=0).to(kind))
    f = tl.sigmoid(tl.load(a_ptr + at + h, inside, other=0).to(kind))
    g = _tanh(tl.load(a_ptr + at + 2 * h, inside, other=0).to(kind))
    o = tl.sigmoid(tl.load(a_ptr + at + 3 * h, inside, other=0).to(kind))
    new = f * tl.load(c_ptr + row * h + unit, inside, other=0).to(kind) + i * g
    tl.store(values_ptr + at, i.to(out), inside)
    tl.store(values_ptr + at + h, f.to(out), inside)
    tl.store(values_ptr + at + 2 * h, g.to(out), inside)
    tl.store(values_ptr + at + 3 * h, o.to(out), inside)
    tl.store(new_ptr + row * h + unit, new.to(out), inside)
    tl.store(state_ptr + row * h + unit, (o * _tanh(new)).to(out), inside)


@triton_kernel
def _slopes_kernel(
    dh_ptr, dnew_ptr, values_ptr, c_ptr, new_ptr, da_ptr, dc_ptr, h, DOUBLE: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < h, row * 4 * h + unit, row * h + unit
    i = tl.load(values_ptr + at, inside, other=0).to(kind)
    f = tl.load(values_ptr + at + h, inside, other=0).to(kind)
    g = tl.load(values_ptr + at + 2 * h, inside, other=0).to(kind)
    o = tl.load(values_ptr + at + 3 * h, inside, other=0).to(kind)
    c = tl.load(c_ptr + here, inside, other=0).to(kind)
    t = _tanh(tl.load(new_ptr + here, inside, other=0).to(kind))
    dh = tl.load(dh_ptr + here, inside, other=0).to(kind)
    d = tl.load(dnew_ptr + here, inside, other=0).to(kind) + dh * o * (1 - t * t)
    tl.store(da_ptr + at, (d * g * i * (1 - i)).to(out), inside)
    tl.store(da_ptr + at + h, (d * c * f * (1 - f)).to(out), inside)
    tl.store(da_ptr + at + 2 * h, (d * i * (1 - g * g)).to(out), inside)
    tl.store(da_ptr + at + 3 * h, (dh * t * o * (1 - o)).to(out), inside)
    tl.store(dc_ptr + here, (d * f).to(out), inside)


@forward.version("triton")
def _forward_triton(a, c):
    a, c = _contiguous(a, c)
    values, new, state = np.empty_like(a), np.empty_like(c), np.empty_like(c)
    grid, constants = _cut(c)
    _cell_kernel[grid](a, c, values, new, state, c.shape[1], **constants)
    return state, new, values


@backward.version("triton")
def _backward_triton(dh, dnew, values, c, new):
    arrays = _contiguous(dh, dnew, values, c, new)
    da, dc, (grid, constants) = np.empty_like(arrays[2]), np.empty_like(arrays[3]), _cut(c)
    _slopes_kernel[grid](*arrays, da, dc, c.shape[1], **constants)
    return da, dc


def _contiguous(*arrays):
    return [a if a.flags.c_contiguous else a.copy() for a in arrays]


def _cut(c):
    n, h = c.shape
    block = min(BLOCK, 1 << max(h - 1, 0).bit_length())
    return (n, -(-h // block)), {"DOUBLE": c.dtype == np.float64, "BLOCK": block}
