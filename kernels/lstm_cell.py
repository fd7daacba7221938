"""The pointwise part of one LSTM step (Hochreiter & Schmidhuber 1997, Gers et al. 2000).

The ladder: naive, each operation streams its arrays through memory; in NumPy, all passes over one
tile of rows run while it is in cache; in Triton, over one block while it is in registers. Memory
traffic in arrays (n, h): forward reads 8 parts of gates and c, writes 4 gates' values, c' and h';
backward reads the values, c, c' and three cotangents, and writes those of the gates and of c: 15
and 14.

A sigmoid is ½ · tanh(x/2) + ½, so one tanh serves all gates, whose values lie gate by gate: passes
over whole arrays are quicker than over parts of rows.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .launch import contiguous, next_power_of_2, triton_kernel
from .tiles import row_tiles

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 512  # of h a program: 4 a thread of each of a dozen arrays
Outputs = tuple[xp.ndarray, ...]


@dispatched
def forward(
    a: xp.ndarray, m: xp.ndarray, c: xp.ndarray, halved: bool = False, out: Outputs | None = None
) -> Outputs:
    """a of the input, m of the state (n, 4h): a + m is what the functions of i, f, g, o take.

    c (n, h) -> h', c' (n, h), the values (4, n, h): c' = f · c + i · g, h' = o · tanh c'. halved:
    a and m hold half of what the sigmoids take. Temporary memory: none.
    """
    state, new, values = out = outputs(c, out)
    for rows in row_tiles(*c.shape):
        gates = xp.add(gates_of(a[rows]), gates_of(m[rows]), out=values[:, rows])
        _step(gates, c[rows], new[rows], state[rows], halved)
    return out


def _step(gates, c, new, state, halved):
    """Of one tile, from the sums in gates (4, n, h)."""
    for sigmoid in (gates[:2], gates[3]):
        if not halved:
            sigmoid *= 0.5
    xp.tanh(gates, out=gates)
    for sigmoid in (gates[:2], gates[3]):
        sigmoid *= 0.5
        sigmoid += 0.5
    i, f, g, o = gates
    xp.multiply(f, c, out=new)
    new += xp.multiply(i, g, out=state)
    xp.tanh(new, out=state)
    state *= o


@dispatched
def backward(
    g: xp.ndarray, dh: xp.ndarray, dc: xp.ndarray, values: xp.ndarray, c: xp.ndarray,
    new: xp.ndarray, da: xp.ndarray | None = None,
) -> xp.ndarray:  # fmt: skip
    """g + dh and dc (n, h) are the cotangents of h' and c'; values, c and c' as forward's.

    Returns that of a and m (n, 4h); dc becomes that of c. Temporary memory: six tiles of
    ROW_ELEMENTS.
    """
    da = xp.empty_like(values, shape=(len(c), 4 * c.shape[1])) if da is None else da
    for rows in row_tiles(*c.shape):
        e, t = xp.add(g[rows], dh[rows]), xp.tanh(new[rows])
        _slopes(values[:, rows], c[rows], e, t, dc[rows], gates_of(da[rows]))
    return da


def _slopes(gates, c, e, t, ec, da):
    """Of one tile: e and ec are the cotangents of h' and c', t is tanh c'; t is written over."""
    dt = xp.multiply(gates, gates)
    (i, f, g, o), (di, df, dg, do) = gates, dt
    xp.subtract(gates[:2], dt[:2], out=dt[:2])  # the slopes of all gates
    xp.subtract(1, dg, out=dg)
    xp.subtract(o, do, out=do)
    do *= t
    do *= e
    t *= t
    xp.subtract(1, t, out=t)
    t *= o
    t *= e
    ec += t
    for slope, partner in ((di, g), (df, c), (dg, i)):
        slope *= ec
        slope *= partner
    ec *= f
    da[...] = dt


@forward.version("naive")
def naive(a, m, c, halved=False, out=None):
    """The formula, one temporary an operation."""
    state, new, values = out = outputs(c, out)
    sigmoid = lambda x: 0.5 + 0.5 * xp.tanh(x if halved else x / 2)  # 1 / (1 + exp(-x)), or of 2x
    i, f, g, o = gates_of(a + m)
    i, f, g, o = values[...] = xp.stack((sigmoid(i), sigmoid(f), xp.tanh(g), sigmoid(o)))
    new[...] = f * c + i * g
    state[...] = o * xp.tanh(new)
    return out


@backward.version("naive")
def _backward_naive(g, dh, dc, values, c, new, da=None):
    (i, f, n, o), t, dh = values, xp.tanh(new), g + dh
    d = dc + dh * o * (1 - t * t)
    parts = d * n * i * (1 - i), d * c * f * (1 - f), d * i * (1 - n * n), dh * t * o * (1 - o)
    dc[...] = d * f
    whole = xp.concatenate(parts, 1)
    if da is None:
        return whole
    da[...] = whole
    return da


def outputs(c: xp.ndarray, out: Outputs | None, gates: int = 4) -> Outputs:
    """Two arrays (n, h) and the values (gates, n, h), unless they are there."""
    shapes = c.shape, c.shape, (gates, *c.shape)
    return out or tuple(xp.empty_like(c, shape=s, order="C") for s in shapes)


def gates_of(a: xp.ndarray, gates: int = 4) -> xp.ndarray:
    """(n, gates·h) as (gates, n, h): a view."""
    return a.reshape(len(a), gates, a.shape[1] // gates).swapaxes(0, 1)


# The same on a GPU: a block of one row's units a program


@triton_kernel
def tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton_kernel
def pick(ptr, at, inside, kind: tl.constexpr):
    return tl.load(ptr + at, inside, other=0).to(kind)


@triton_kernel
def _cell_kernel(
    a_ptr, m_ptr, c_ptr, state_ptr, new_ptr, values_ptr, h,
    SCALE: tl.constexpr, DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row, n = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < h, row * 4 * h + unit, row * h + unit
    i = pick(a_ptr, at, inside, kind) + pick(m_ptr, at, inside, kind)
    f = pick(a_ptr, at + h, inside, kind) + pick(m_ptr, at + h, inside, kind)
    g = pick(a_ptr, at + 2 * h, inside, kind) + pick(m_ptr, at + 2 * h, inside, kind)
    o = pick(a_ptr, at + 3 * h, inside, kind) + pick(m_ptr, at + 3 * h, inside, kind)
    i, f, g, o = tl.sigmoid(SCALE * i), tl.sigmoid(SCALE * f), tanh(g), tl.sigmoid(SCALE * o)
    new = f * pick(c_ptr, here, inside, kind) + i * g
    tl.store(values_ptr + here, i.to(out), inside)
    tl.store(values_ptr + n * h + here, f.to(out), inside)
    tl.store(values_ptr + 2 * n * h + here, g.to(out), inside)
    tl.store(values_ptr + 3 * n * h + here, o.to(out), inside)
    tl.store(new_ptr + here, new.to(out), inside)
    tl.store(state_ptr + here, (o * tanh(new)).to(out), inside)


@triton_kernel
def _slopes_kernel(
    g_ptr, dh_ptr, dc_ptr, values_ptr, c_ptr, new_ptr, da_ptr, h,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = values_ptr.dtype.element_ty
    row, n = tl.program_id(0).to(tl.int64), tl.num_programs(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < h, row * 4 * h + unit, row * h + unit
    i = pick(values_ptr, here, inside, kind)
    f = pick(values_ptr, n * h + here, inside, kind)
    g = pick(values_ptr, 2 * n * h + here, inside, kind)
    o = pick(values_ptr, 3 * n * h + here, inside, kind)
    t = tanh(pick(new_ptr, here, inside, kind))
    dh = pick(g_ptr, here, inside, kind) + pick(dh_ptr, here, inside, kind)
    d = pick(dc_ptr, here, inside, kind) + dh * o * (1 - t * t)
    tl.store(da_ptr + at, (d * g * i * (1 - i)).to(out), inside)
    c = pick(c_ptr, here, inside, kind)
    tl.store(da_ptr + at + h, (d * c * f * (1 - f)).to(out), inside)
    tl.store(da_ptr + at + 2 * h, (d * i * (1 - g * g)).to(out), inside)
    tl.store(da_ptr + at + 3 * h, (dh * t * o * (1 - o)).to(out), inside)
    tl.store(dc_ptr + here, (d * f).to(out), inside)


@forward.version("triton")
def _forward_triton(a, m, c, halved=False, out=None):
    out = outputs(c, out)
    grid, constants = cut(c)
    scale = 2 if halved else 1
    _cell_kernel[grid](*map(contiguous, (a, m, c)), *out, c.shape[1], SCALE=scale, **constants)
    return out


@backward.version("triton")
def _backward_triton(g, dh, dc, values, c, new, da=None):
    assert dc.flags.c_contiguous, f"dc is written to: want it contiguous, not {dc.strides}"
    da = xp.empty_like(values, shape=(len(c), 4 * c.shape[1])) if da is None else da
    grid, constants = cut(c)
    arrays = map(contiguous, (g, dh, dc, values, c, new))
    _slopes_kernel[grid](*arrays, da, c.shape[1], **constants)
    return da


def cut(c: xp.ndarray) -> tuple[tuple[int, int], dict[str, Any]]:
    """For c (n, h) a kernel's grid and constants."""
    n, h = c.shape
    block = min(BLOCK, next_power_of_2(h))
    return (n, -(-h // block)), {"DOUBLE": c.dtype == xp.float64, "BLOCK": block}
