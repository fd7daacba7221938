"""The pointwise part of one GRU step (Cho et al. 2014, with the reset gate behind the product).

    r = σ(a_r + m_r)    z = σ(a_z + m_z)    n = tanh(a_n + r · (m_n + b))    h' = n + z · (h - n)

with a of the input, m of the state. The ladder: naive, each operation streams its arrays through
memory; in NumPy, all passes over one tile of rows run while it is in cache; in Triton, over one
block while it is in registers. Memory traffic in arrays (n, h): forward reads 6 parts of gates and
h, writes 3 gates' values, m_n + b and h'; backward reads the values, m_n + b, h and two cotangents,
and writes those of a, of m and of h: 12 and 14.

Why the values lie gate by gate, and sigmoids are made of tanh: see lstm_cell.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import contiguous, triton_kernel
from .lstm_cell import Outputs, cut, gates_of, outputs, pick, tanh
from .tiles import row_tiles

tl: Any = None  # Triton's language, once a kernel is launched


@dispatched
def forward(
    a: xp.ndarray, m: xp.ndarray, h: xp.ndarray, b: xp.ndarray | None = None,
    halved: bool = False, out: Outputs | None = None,
) -> Outputs:  # fmt: skip
    """a, m (n, 3h), h (n, h), b (h,) -> h', m_n + b (n, h), the values of r, z, n (3, n, h).

    halved: of r and z, a and m hold half of what the sigmoids take. Temporary
    memory: none.
    """
    state, hidden, values = out = outputs(h, out, 3)
    for rows in row_tiles(*h.shape):
        parts = gates_of(a[rows], 3), gates_of(m[rows], 3)
        _step(*parts, h[rows], b, values[:, rows], hidden[rows], state[rows], halved)
    return out


def _step(a, m, h, b, gates, hidden, state, halved):
    """Of one tile, with a, m and gates (3, n, h)."""
    both, new = gates[:2], gates[2]
    xp.add(a[:2], m[:2], out=both)
    if not halved:
        both *= 0.5
    xp.tanh(both, out=both)
    both *= 0.5
    both += 0.5
    xp.add(m[2], 0 if b is None else b, out=hidden)
    xp.multiply(both[0], hidden, out=new)
    new += a[2]
    xp.tanh(new, out=new)
    xp.subtract(h, new, out=state)
    state *= both[1]
    state += new


@dispatched
def backward(
    g: xp.ndarray, dh: xp.ndarray, values: xp.ndarray, hidden: xp.ndarray, h: xp.ndarray,
    out: Outputs | None = None,
) -> Outputs:  # fmt: skip
    """g + dh (n, h) is the cotangent of h'; the values, m_n + b and h as forward's.

    Returns those of a, m (n, 3h) and h (n, h), which may be where dh is. Temporary memory: four
    tiles of ROW_ELEMENTS.
    """
    da, dm, dold = out = _slots(h, out)
    for rows in row_tiles(*h.shape):
        parts = gates_of(da[rows], 3), gates_of(dm[rows], 3), dold[rows]
        _slopes(xp.add(g[rows], dh[rows]), values[:, rows], hidden[rows], h[rows], *parts)
    return out


def _slopes(e, gates, hidden, h, da, dm, dold):
    """Of one tile: e is the cotangent of h', and written over."""
    d = xp.multiply(gates, gates)
    (r, z, new), (dr, dz, dn) = gates, d
    xp.subtract(1, dn, out=dn)
    xp.subtract(gates[:2], d[:2], out=d[:2])  # the slopes of all gates
    xp.multiply(e, z, out=dold)
    dz *= e
    e -= dold
    dn *= e
    dr *= dn
    dr *= hidden
    dz *= xp.subtract(h, new, out=e)
    da[...] = d
    dn *= r
    dm[...] = d


@forward.version("naive")
def naive(a, m, h, b=None, halved=False, out=None):
    """The formula, one temporary an operation."""
    state, hidden, values = out = outputs(h, out, 3)
    sigmoid = lambda x: 0.5 + 0.5 * xp.tanh(x if halved else x / 2)  # 1 / (1 + exp(-x)), or of 2x
    (ar, az, an), (mr, mz, mn) = gates_of(a, 3), gates_of(m, 3)
    hidden[...] = mn if b is None else mn + b
    r, z = sigmoid(ar + mr), sigmoid(az + mz)
    values[...] = xp.stack((r, z, xp.tanh(an + r * hidden)))
    state[...] = (1 - z) * values[2] + z * h
    return out


@backward.version("naive")
def _backward_naive(g, dh, values, hidden, h, out=None):
    (r, z, n), d, out = values, g + dh, _slots(h, out)
    dn = d * (1 - z) * (1 - n * n)
    both = dn * hidden * r * (1 - r), d * (h - n) * z * (1 - z)
    for slot, part in zip(out, (xp.hstack((*both, dn)), xp.hstack((*both, dn * r)), d * z)):
        slot[...] = part
    return out


def _slots(h: xp.ndarray, out: Outputs | None) -> Outputs:
    """Cotangents (n, 3h) twice and (n, h), unless they are there."""
    n, units = h.shape
    return out or tuple(xp.empty_like(h, shape=(n, k * units), order="C") for k in (3, 3, 1))


# The same on a GPU: a block of one row's units a program


@triton_kernel
def _cell_kernel(
    a_ptr, m_ptr, h_ptr, b_ptr, state_ptr, hidden_ptr, values_ptr, units,
    SCALE: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row, n = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < units, row * 3 * units + unit, row * units + unit
    r = pick(a_ptr, at, inside, kind) + pick(m_ptr, at, inside, kind)
    z = pick(a_ptr, at + units, inside, kind) + pick(m_ptr, at + units, inside, kind)
    hidden = pick(m_ptr, at + 2 * units, inside, kind)
    if b_ptr is not None:
        hidden += pick(b_ptr, unit, inside, kind)
    r, z = tl.sigmoid(SCALE * r), tl.sigmoid(SCALE * z)
    new = tanh(pick(a_ptr, at + 2 * units, inside, kind) + r * hidden)
    tl.store(values_ptr + here, r.to(out), inside)
    tl.store(values_ptr + n * units + here, z.to(out), inside)
    tl.store(values_ptr + 2 * n * units + here, new.to(out), inside)
    tl.store(hidden_ptr + here, hidden.to(out), inside)
    h = pick(h_ptr, here, inside, kind)
    tl.store(state_ptr + here, (new + z * (h - new)).to(out), inside)


@triton_kernel
def _slopes_kernel(
    g_ptr, dh_ptr, values_ptr, hidden_ptr, h_ptr, da_ptr, dm_ptr, dold_ptr, units,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row, n = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < units, row * 3 * units + unit, row * units + unit
    r = pick(values_ptr, here, inside, kind)
    z = pick(values_ptr, n * units + here, inside, kind)
    new = pick(values_ptr, 2 * n * units + here, inside, kind)
    d = pick(g_ptr, here, inside, kind) + pick(dh_ptr, here, inside, kind)
    dn = d * (1 - z) * (1 - new * new)
    dr = dn * pick(hidden_ptr, here, inside, kind) * r * (1 - r)
    dz = d * (pick(h_ptr, here, inside, kind) - new) * z * (1 - z)
    tl.store(dold_ptr + here, (d * z).to(out), inside)
    tl.store(da_ptr + at, dr.to(out), inside)
    tl.store(dm_ptr + at, dr.to(out), inside)
    tl.store(da_ptr + at + units, dz.to(out), inside)
    tl.store(dm_ptr + at + units, dz.to(out), inside)
    tl.store(da_ptr + at + 2 * units, dn.to(out), inside)
    tl.store(dm_ptr + at + 2 * units, (dn * r).to(out), inside)


@forward.version("triton")
def _forward_triton(a, m, h, b=None, halved=False, out=None):
    out, (grid, constants) = outputs(h, out, 3), cut(h)
    scale = 2 if halved else 1
    arrays = map(contiguous, (a, m, h, b))
    _cell_kernel[grid](*arrays, *out, h.shape[1], SCALE=scale, **constants)
    return out


@backward.version("triton")
def _backward_triton(g, dh, values, hidden, h, out=None):
    out, (grid, constants) = _slots(h, out), cut(h)
    _slopes_kernel[grid](
        *map(contiguous, (g, dh, values, hidden, h)), *out, h.shape[1], **constants
    )
    return out
