"""The pointwise part of one LSTM step (Hochreiter & Schmidhuber 1997, Gers et al. 2000).

    i = σ(a_i + m_i)    f = σ(a_f + m_f)    g = tanh(a_g + m_g)    o = σ(a_o + m_o)
    c' = f · c + i · g    h' = o · tanh(c')

with a = W_ih x of the input and m = W_hh h of the state; a bias may be added to both.

The ladder, in arrays (n, h) that are read or written:

- formula: whole arrays, an operation at a time: forward moves 72, backward 82.
- loop: a row at a time, which stays in the cache between its passes: forward reads a, m and c and
  writes the gates over a, c' and h', 15 arrays; backward reads the gates, c, c' and three
  cotangents and writes those of the gates and of c, 14 arrays.
- tile program: a block of one row's units in registers, and the same bytes as the loop.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import sigmoid, tanh
from .launch import contiguous, next_power_of_2, triton_kernel
from .loops import F, Out, loop

tl: Any = None  # Triton's language, once a kernel is launched

BLOCK = 512  # of h a program: 4 a thread of each of a dozen arrays
Pair = tuple[xp.ndarray, xp.ndarray]


# The formula


def logistic(x: xp.ndarray) -> xp.ndarray:
    """1 / (1 + exp(-x)), by tanh, which does not overflow."""
    return 0.5 + 0.5 * xp.tanh(x / 2)


@formula
def forward(
    gates: xp.ndarray, m: xp.ndarray, c: xp.ndarray, b: xp.ndarray | None = None,
    out: Pair | None = None,
) -> Pair:  # fmt: skip
    """gates (n, 4h) holds a and becomes i, f, g, o. m (n, 4h), c (n, h), b (4h,) -> h', c' (n, h).

    out: where h' and c' are written. Temporary memory: none.
    """
    state, new = out = out or two_like(c)
    i, f, g, o = xp.split(gates + m if b is None else gates + m + b, 4, 1)
    i, f, g, o = logistic(i), logistic(f), xp.tanh(g), logistic(o)
    gates[...] = xp.concatenate((i, f, g, o), 1)
    new[...] = f * c + i * g
    state[...] = o * xp.tanh(new)
    return out


@formula
def backward(
    g: xp.ndarray, dh: xp.ndarray, dc: xp.ndarray, gates: xp.ndarray, c: xp.ndarray,
    new: xp.ndarray, da: xp.ndarray | None = None,
) -> xp.ndarray:  # fmt: skip
    """g + dh and dc (n, h) are the cotangents of h' and c'; gates, c and c' as forward left them.

    Returns the cotangent of a and m (n, 4h), written into da; dc becomes that of c.
    Temporary memory: none.
    """
    da = xp.empty_like(gates, order="C") if da is None else da
    (i, f, n, o), t, e = xp.split(gates, 4, 1), xp.tanh(new), g + dh
    d = dc + e * o * (1 - t * t)
    parts = d * n * i * (1 - i), d * c * f * (1 - f), d * i * (1 - n * n), e * t * o * (1 - o)
    da[...] = xp.concatenate(parts, 1)
    dc[...] = d * f
    return da


def two_like(c: xp.ndarray) -> Pair:
    """Two new arrays (n, h)."""
    return xp.empty_like(c, order="C"), xp.empty_like(c, order="C")


# The loop. Each pass has few arrays: LLVM vectorises one over all of them only if it can tell, by
# as many comparisons as there are pairs of arrays, that none overlaps another.


@loop
def lstm_rows(
    m: F[:, :, ::1], c: F[:, ::1], b: F[:, ::1],
    gates: Out[:, :, ::1], state: Out[:, ::1], new: Out[:, ::1],
):  # fmt: skip
    # m and gates (n, 4, h), b (4, h), all else (n, h)
    n, h = c.shape
    for k in range(n):
        for j in range(h):
            gates[k, 0, j] = sigmoid(gates[k, 0, j] + m[k, 0, j] + b[0, j])
        for j in range(h):
            gates[k, 1, j] = sigmoid(gates[k, 1, j] + m[k, 1, j] + b[1, j])
        for j in range(h):
            gates[k, 2, j] = tanh(gates[k, 2, j] + m[k, 2, j] + b[2, j])
        for j in range(h):
            gates[k, 3, j] = sigmoid(gates[k, 3, j] + m[k, 3, j] + b[3, j])
        for j in range(h):
            new[k, j] = gates[k, 1, j] * c[k, j] + gates[k, 0, j] * gates[k, 2, j]
        for j in range(h):
            state[k, j] = gates[k, 3, j] * tanh(new[k, j])


@loop
def lstm_slope_rows(
    g: F[:, ::1], dh: F[:, ::1], gates: F[:, :, ::1], c: F[:, ::1], new: F[:, ::1],
    dc: Out[:, ::1], da: Out[:, :, ::1],
):  # fmt: skip
    # gates and da (n, 4, h), all else (n, h)
    n, h = c.shape
    for k in range(n):
        for j in range(h):
            t, o = tanh(new[k, j]), gates[k, 3, j]
            e = (g[k, j] + dh[k, j]) * o
            dc[k, j] += e * (1.0 - t * t)
            da[k, 3, j] = e * t * (1.0 - o)
        for j in range(h):
            d, i, f, u = dc[k, j], gates[k, 0, j], gates[k, 1, j], gates[k, 2, j]
            da[k, 0, j] = d * u * i * (1.0 - i)
            da[k, 1, j] = d * c[k, j] * f * (1.0 - f)
            da[k, 2, j] = d * i * (1.0 - u * u)
            dc[k, j] = d * f


@forward.version("numba")
def _forward_loop(gates, m, c, b=None, out=None):
    n, h = c.shape
    b = xp.zeros_like(c, shape=(4, h)) if b is None else b.reshape(4, h)
    out = out or two_like(c)
    lstm_rows(m.reshape(n, 4, h), c, b, gates.reshape(n, 4, h), *out)
    return out


@backward.version("numba")
def _backward_loop(g, dh, dc, gates, c, new, da=None):
    (n, h), da = c.shape, xp.empty_like(gates, order="C") if da is None else da
    lstm_slope_rows(g, dh, gates.reshape(n, 4, h), c, new, dc, da.reshape(n, 4, h))
    return da


# The tile program: a block of one row's units


@triton_kernel
def tile_tanh(x):
    return 2 * tl.sigmoid(2 * x) - 1


@triton_kernel
def pick(ptr, at, inside, kind: tl.constexpr):
    return tl.load(ptr + at, inside, other=0).to(kind)


@triton_kernel
def _cell_kernel(
    gates_ptr, m_ptr, c_ptr, b_ptr, state_ptr, new_ptr, h,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = gates_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < h, row * 4 * h + unit, row * h + unit
    i = pick(gates_ptr, at, inside, kind) + pick(m_ptr, at, inside, kind)
    f = pick(gates_ptr, at + h, inside, kind) + pick(m_ptr, at + h, inside, kind)
    g = pick(gates_ptr, at + 2 * h, inside, kind) + pick(m_ptr, at + 2 * h, inside, kind)
    o = pick(gates_ptr, at + 3 * h, inside, kind) + pick(m_ptr, at + 3 * h, inside, kind)
    if b_ptr is not None:
        i += pick(b_ptr, unit, inside, kind)
        f += pick(b_ptr, unit + h, inside, kind)
        g += pick(b_ptr, unit + 2 * h, inside, kind)
        o += pick(b_ptr, unit + 3 * h, inside, kind)
    i, f, g, o = tl.sigmoid(i), tl.sigmoid(f), tile_tanh(g), tl.sigmoid(o)
    new = f * pick(c_ptr, here, inside, kind) + i * g
    tl.store(gates_ptr + at, i.to(out), inside)
    tl.store(gates_ptr + at + h, f.to(out), inside)
    tl.store(gates_ptr + at + 2 * h, g.to(out), inside)
    tl.store(gates_ptr + at + 3 * h, o.to(out), inside)
    tl.store(new_ptr + here, new.to(out), inside)
    tl.store(state_ptr + here, (o * tile_tanh(new)).to(out), inside)


@triton_kernel
def _slopes_kernel(
    g_ptr, dh_ptr, dc_ptr, gates_ptr, c_ptr, new_ptr, da_ptr, h,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = gates_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < h, row * 4 * h + unit, row * h + unit
    i = pick(gates_ptr, at, inside, kind)
    f = pick(gates_ptr, at + h, inside, kind)
    g = pick(gates_ptr, at + 2 * h, inside, kind)
    o = pick(gates_ptr, at + 3 * h, inside, kind)
    t = tile_tanh(pick(new_ptr, here, inside, kind))
    dh = pick(g_ptr, here, inside, kind) + pick(dh_ptr, here, inside, kind)
    d = pick(dc_ptr, here, inside, kind) + dh * o * (1 - t * t)
    tl.store(da_ptr + at, (d * g * i * (1 - i)).to(out), inside)
    c = pick(c_ptr, here, inside, kind)
    tl.store(da_ptr + at + h, (d * c * f * (1 - f)).to(out), inside)
    tl.store(da_ptr + at + 2 * h, (d * i * (1 - g * g)).to(out), inside)
    tl.store(da_ptr + at + 3 * h, (dh * t * o * (1 - o)).to(out), inside)
    tl.store(dc_ptr + here, (d * f).to(out), inside)


@forward.version("triton")
def _forward_triton(gates, m, c, b=None, out=None):
    want_contiguous("gates", gates)
    out, (grid, constants) = out or two_like(c), cut(c)
    _cell_kernel[grid](gates, *map(contiguous, (m, c, b)), *out, c.shape[1], **constants)
    return out


@backward.version("triton")
def _backward_triton(g, dh, dc, gates, c, new, da=None):
    want_contiguous("dc", dc)
    da = xp.empty_like(gates, order="C") if da is None else da
    grid, constants = cut(c)
    arrays = map(contiguous, (g, dh, dc, gates, c, new))
    _slopes_kernel[grid](*arrays, da, c.shape[1], **constants)
    return da


def want_contiguous(name: str, array: xp.ndarray) -> None:
    """Refuse an array with gaps: the kernel would write to a copy of it."""
    strides = array.strides
    assert array.flags.c_contiguous, f"{name} is written to: want it contiguous, not {strides}"


def cut(c: xp.ndarray) -> tuple[tuple[int, int], dict[str, Any]]:
    """For c (n, h) a kernel's grid and constants."""
    n, h = c.shape
    block = min(BLOCK, next_power_of_2(h))
    return (n, -(-h // block)), {"DOUBLE": c.dtype == xp.float64, "BLOCK": block}
