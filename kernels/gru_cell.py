"""The pointwise part of one GRU step (Cho et al. 2014, with the reset gate behind the product).

    r = σ(a_r + m_r)    z = σ(a_z + m_z)    n = tanh(a_n + r · m_n)    h' = n + z · (h - n)

with a = W_ih x of the input and m = W_hh h of the state, and a bias in each.

The ladder, in arrays (n, h) that are read or written:

- formula: whole arrays, an operation at a time: forward moves 65, backward 72.
- loop: a row at a time, which stays in the cache between its passes: forward reads a, m and h and
  writes the gates over a, m_n and h', 12 arrays; backward reads the gates, m_n, h and two
  cotangents and writes those of a, of m and of h, 14 arrays.
- tile program: a block of one row's units in registers, and the same bytes as the loop.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import sigmoid, tanh
from .launch import contiguous, triton_kernel
from .loops import F, Out, loop
from .lstm_cell import Pair, cut, logistic, pick, tile_tanh, two_like, want_contiguous

tl: Any = None  # Triton's language, once a kernel is launched

Slots = tuple[xp.ndarray, xp.ndarray, xp.ndarray]


# The formula


@formula
def forward(
    gates: xp.ndarray, m: xp.ndarray, h: xp.ndarray, b: xp.ndarray | None = None,
    out: Pair | None = None,
) -> Pair:  # fmt: skip
    """gates (n, 3h) holds a and becomes r, z, n. m (n, 3h), h (n, h) -> h', m_n + its bias (n, h).

    b (4h,): the biases of r, of z, of a_n and of m_n. out: where both results are written.
    Temporary memory: none.
    """
    state, hidden = out = out or two_like(h)
    br, bz, bn, bm = xp.zeros_like(h, shape=(4, 1)) if b is None else b.reshape(4, h.shape[1])
    (ar, az, an), (mr, mz, mn) = xp.split(gates, 3, 1), xp.split(m, 3, 1)
    hidden[...] = mn + bm
    r, z = logistic(ar + mr + br), logistic(az + mz + bz)
    n = xp.tanh(an + bn + r * hidden)
    gates[...] = xp.concatenate((r, z, n), 1)
    state[...] = (1 - z) * n + z * h
    return out


@formula
def backward(
    g: xp.ndarray, dh: xp.ndarray, gates: xp.ndarray, hidden: xp.ndarray, h: xp.ndarray,
    out: Slots | None = None,
) -> Slots:  # fmt: skip
    """g + dh (n, h) is the cotangent of h'; gates, m_n + its bias and h as forward left them.

    Returns those of a, m (n, 3h) and h (n, h), written into `out`; the last may be dh itself.
    Temporary memory: none.
    """
    da, dm, dold = out = out or _slots(h)
    (r, z, n), d = xp.split(gates, 3, 1), g + dh
    dn = d * (1 - z) * (1 - n * n)
    both = dn * hidden * r * (1 - r), d * (h - n) * z * (1 - z)
    da[...], dm[...] = xp.hstack((*both, dn)), xp.hstack((*both, dn * r))
    dold[...] = d * z
    return out


def _slots(h: xp.ndarray) -> Slots:
    """New arrays (n, 3h) twice and (n, h)."""
    n, units = h.shape
    a, m, old = (xp.empty_like(h, shape=(n, k * units), order="C") for k in (3, 3, 1))
    return a, m, old


# The loop


@loop
def gru_rows(
    m: F[:, :, ::1], h: F[:, ::1], b: F[:, ::1],
    gates: Out[:, :, ::1], state: Out[:, ::1], hidden: Out[:, ::1],
):  # fmt: skip
    # m and gates (n, 3, units), b (4, units), all else (n, units)
    n, units = h.shape
    for k in range(n):
        for j in range(units):
            gates[k, 0, j] = sigmoid(gates[k, 0, j] + m[k, 0, j] + b[0, j])
        for j in range(units):
            gates[k, 1, j] = sigmoid(gates[k, 1, j] + m[k, 1, j] + b[1, j])
        for j in range(units):
            hidden[k, j] = m[k, 2, j] + b[3, j]
        for j in range(units):
            gates[k, 2, j] = tanh(gates[k, 2, j] + b[2, j] + gates[k, 0, j] * hidden[k, j])
        for j in range(units):
            state[k, j] = gates[k, 2, j] + gates[k, 1, j] * (h[k, j] - gates[k, 2, j])


@loop
def gru_slope_rows(
    g: F[:, ::1], gates: F[:, :, ::1], hidden: F[:, ::1], h: F[:, ::1],
    da: Out[:, :, ::1], dm: Out[:, :, ::1], dh: Out[:, ::1],
):  # fmt: skip
    # gates, da and dm (n, 3, units), all else (n, units); dh is added to g and written over
    n, units = h.shape
    for k in range(n):
        for j in range(units):
            d, z, u = g[k, j] + dh[k, j], gates[k, 1, j], gates[k, 2, j]
            da[k, 1, j] = d * (h[k, j] - u) * z * (1.0 - z)
            da[k, 2, j] = d * (1.0 - z) * (1.0 - u * u)
            dh[k, j] = d * z
        for j in range(units):
            r, dn = gates[k, 0, j], da[k, 2, j]
            da[k, 0, j] = dn * hidden[k, j] * r * (1.0 - r)
            dm[k, 2, j] = dn * r
        for part in range(2):
            for j in range(units):
                dm[k, part, j] = da[k, part, j]


@forward.version("numba")
def _forward_loop(gates, m, h, b=None, out=None):
    n, units = h.shape
    b = xp.zeros_like(h, shape=(4, units)) if b is None else b.reshape(4, units)
    out = out or two_like(h)
    gru_rows(m.reshape(n, 3, units), h, b, gates.reshape(n, 3, units), *out)
    return out


@backward.version("numba")
def _backward_loop(g, dh, gates, hidden, h, out=None):
    (n, units), (da, dm, dold) = h.shape, out or _slots(h)
    if dold is not dh:
        dold[...] = dh
    da3, dm3 = da.reshape(n, 3, units), dm.reshape(n, 3, units)
    gru_slope_rows(g, gates.reshape(n, 3, units), hidden, h, da3, dm3, dold)
    return da, dm, dold


# The tile program: a block of one row's units


@triton_kernel
def _cell_kernel(
    gates_ptr, m_ptr, h_ptr, b_ptr, state_ptr, hidden_ptr, units,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = gates_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < units, row * 3 * units + unit, row * units + unit
    r = pick(gates_ptr, at, inside, kind) + pick(m_ptr, at, inside, kind)
    z = pick(gates_ptr, at + units, inside, kind) + pick(m_ptr, at + units, inside, kind)
    new = pick(gates_ptr, at + 2 * units, inside, kind)
    hidden = pick(m_ptr, at + 2 * units, inside, kind)
    if b_ptr is not None:
        r += pick(b_ptr, unit, inside, kind)
        z += pick(b_ptr, unit + units, inside, kind)
        new += pick(b_ptr, unit + 2 * units, inside, kind)
        hidden += pick(b_ptr, unit + 3 * units, inside, kind)
    r, z = tl.sigmoid(r), tl.sigmoid(z)
    new = tile_tanh(new + r * hidden)
    tl.store(gates_ptr + at, r.to(out), inside)
    tl.store(gates_ptr + at + units, z.to(out), inside)
    tl.store(gates_ptr + at + 2 * units, new.to(out), inside)
    tl.store(hidden_ptr + here, hidden.to(out), inside)
    h = pick(h_ptr, here, inside, kind)
    tl.store(state_ptr + here, (new + z * (h - new)).to(out), inside)


@triton_kernel
def _slopes_kernel(
    g_ptr, dh_ptr, gates_ptr, hidden_ptr, h_ptr, da_ptr, dm_ptr, dold_ptr, units,
    DOUBLE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    out: tl.constexpr = gates_ptr.dtype.element_ty
    row = tl.program_id(0).to(tl.int64)
    unit = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside, at, here = unit < units, row * 3 * units + unit, row * units + unit
    r = pick(gates_ptr, at, inside, kind)
    z = pick(gates_ptr, at + units, inside, kind)
    new = pick(gates_ptr, at + 2 * units, inside, kind)
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
def _forward_triton(gates, m, h, b=None, out=None):
    want_contiguous("gates", gates)
    out, (grid, constants) = out or two_like(h), cut(h)
    _cell_kernel[grid](gates, *map(contiguous, (m, h, b)), *out, h.shape[1], **constants)
    return out


@backward.version("triton")
def _backward_triton(g, dh, gates, hidden, h, out=None):
    out, (grid, constants) = out or _slots(h), cut(h)
    arrays = map(contiguous, (g, dh, gates, hidden, h))
    _slopes_kernel[grid](*arrays, *out, h.shape[1], **constants)
    return out
