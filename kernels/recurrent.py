"""Recurrent layers, whole sequences at once: tanh or ReLU (Elman 1990), LSTM (Hochreiter &
Schmidhuber 1997, with the forget gate of Gers et al. 2000), GRU (Cho et al. 2014).

Rows: the steps of b sequences of falling lengths lie one after the other, step t with one row for
each of the sizes[t] sequences that still run. With equal lengths that is x (s, b, in) itself, read
as s·b rows.

All inputs are projected by one product, and the gradient of each weight is one product. A step
needs one product forward, h·W_hhᵀ, and its transpose backward; all else is done unit by unit in
lstm_cell and gru_cell. The projected inputs become the gates where they lie.

Ready to be split: weights (gates·h, in) are read as (gates, h, in). Hidden units meet in the
product with W_hh alone; all else is done unit by unit. So a rank may hold a range of the units of
every gate (see Ranks): h is gathered after each step, and dh is summed before each step backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from . import arrays as xp
from . import gru_cell, lstm_cell
from .product import product, turned, unpacked

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
Steps = list[tuple[slice, slice, slice]]


class Ranks(NamedTuple):
    """What one of t ranks needs that holds a range of the hidden units, `own`, of each gate."""

    own: slice
    gather: Callable[[xp.ndarray], xp.ndarray]  # its units (k, h/t) -> those of all ranks (k, h)
    scatter: Callable[[xp.ndarray], xp.ndarray]  # (k, h) -> its units of the sum over the ranks


class Saved(NamedTuple):
    """What backward needs. Without ranks, t is 1."""

    kind: str
    steps: Steps
    x: xp.ndarray  # (n, in)
    w_ih: xp.ndarray  # (gates·h/t, in)
    w_hh: xp.ndarray  # (gates·h/t, h)
    h: xp.ndarray  # (b + n, h): h0 and the state after each row
    gates: xp.ndarray  # (n, gates·h/t), their values; of tanh and ReLU: h, too
    extra: xp.ndarray  # LSTM: c0 and the cells (b + n, h/t); GRU: W_hn h + b_hn (n, h/t)
    given: tuple[bool, bool]  # whether h0 and c0 were
    ranks: Ranks | None


def naive(kind, x, h, c, w_ih, w_hh, b_ih=0, b_hh=0):
    """One step of one kind by its formula: x (b, in), h and c (b, h) -> h, c."""
    sigmoid = lambda x: 1 / (1 + xp.exp(-x))
    a, m = (xp.split(p, GATES[kind], 1) for p in (x @ w_ih.T + b_ih, h @ w_hh.T + b_hh))
    if kind == "GRU":
        r, z = sigmoid(a[0] + m[0]), sigmoid(a[1] + m[1])
        return (1 - z) * xp.tanh(a[2] + r * m[2]) + z * h, c
    a = [p + q for p, q in zip(a, m)]
    if kind == "LSTM":
        c = sigmoid(a[1]) * c + sigmoid(a[0]) * xp.tanh(a[2])
        return sigmoid(a[3]) * xp.tanh(c), c
    return xp.tanh(a[0]) if kind == "RNN_TANH" else xp.maximum(a[0], 0), c


# Rows


def steps_of(sizes: Sequence[int]) -> Steps:
    """For each step the rows of its states before it and after it, h0 being the first b, and of
    its gates."""
    b, before, now, steps = sizes[0], 0, sizes[0], []
    for n in sizes:
        steps.append((slice(before, before + n), slice(now, now + n), slice(now - b, now - b + n)))
        before, now = now, now + n
    return steps


def ends(sizes: Sequence[int]) -> xp.ndarray:
    """The row of each sequence's last step."""
    rows = xp.empty(sizes[0], xp.int64)
    for _, _, step in steps_of(sizes):
        rows[: step.stop - step.start] = xp.arange(step.start, step.stop)
    return rows


def reversal(sizes: Sequence[int]) -> xp.ndarray:
    """The order of rows in which every sequence runs backwards (applied twice: as before)."""
    step, place = xp.nonzero(xp.arange(sizes[0]) < xp.array(sizes)[:, None])
    starts = xp.cumsum(sizes) - sizes
    return starts[xp.bincount(place)[place] - 1 - step] + place


def _before(h: xp.ndarray, steps: Steps) -> xp.ndarray:
    """The state before each row, (n, h)."""
    first, last = steps[0][2], steps[-1][2]
    if last.stop - last.start == first.stop:  # equal lengths: the states themselves
        return h[: last.stop]
    return xp.concatenate([h[before] for before, _, _ in steps])


# All kinds


def forward(
    kind: str, x: xp.ndarray, h0: xp.ndarray | None, c0: xp.ndarray | None, w_ih: xp.ndarray,
    w_hh: xp.ndarray, b_ih: xp.ndarray | None, b_hh: xp.ndarray | None, sizes: Sequence[int],
    ranks: Ranks | None = None,
) -> tuple[xp.ndarray, Saved]:  # fmt: skip
    """x (n, in), h0 and c0 (b, h) or None for 0, weights (gates·h/t, in or h), biases (gates·h/t).

    Returns the states (n, h), for an LSTM with the last cells (b, h) after them; and for backward.
    Temporary memory: gates and states of a step; w_hh twice, and w_ih too if `unpacked`.
    """
    steps, b, n = steps_of(sizes), sizes[0], len(x)
    units, own = len(w_hh) // GATES[kind], ranks.own if ranks else slice(None)
    h = xp.empty_like(x, shape=(b + n + (b if kind == "LSTM" else 0), w_hh.shape[1]))
    h[:b] = 0 if h0 is None else h0
    place = h[b : b + n] if kind.startswith("RNN") and ranks is None else None
    w_x = turned(w_ih) if unpacked() and n > 1 else w_ih.T
    gates, extra, bias = product(x, w_x, place, lined=True), h, _bias(kind, b_ih, b_hh)
    # For a few rows BLAS takes up to an eighth longer to read the transpose of what lies in memory.
    w = turned(w_hh) if min(b, len(steps)) > 1 else w_hh.T
    if kind == "LSTM":
        extra = xp.empty_like(x, shape=(b + n, units))
        extra[:b] = 0 if c0 is None else c0[:, own]
    elif kind == "GRU":
        extra = xp.empty_like(x, shape=(n, units))
    products, states = xp.empty_like(x, shape=(b, len(w_hh))), xp.empty_like(x, shape=(b, units))
    for before, now, rows in steps:
        a, m = gates[rows], product(h[before], w, products[: now.stop - now.start], lined=True)
        state = h[now] if ranks is None else states[: len(a)]
        if kind == "LSTM":
            lstm_cell.forward(a, m, extra[before], bias, (state, extra[now]))
        elif kind == "GRU":
            old = xp.ascontiguousarray(h[before, own])
            gru_cell.forward(a, m, old, bias, (state, extra[rows]))
        else:
            _activate(kind, a, m, bias, state)
        if ranks is not None:
            h[now] = ranks.gather(state)
    if kind == "LSTM":
        last = extra[b + xp.at_home_of(h, ends(sizes))]
        h[b + n :] = last if ranks is None else ranks.gather(last)
    gates, given = gates if kind in ("LSTM", "GRU") else h, (h0 is not None, c0 is not None)
    return h[b:], Saved(kind, steps, x, w_ih, w_hh, h, gates, extra, given, ranks)


def _bias(kind: str, b_ih: xp.ndarray | None, b_hh: xp.ndarray | None) -> xp.ndarray | None:
    """What a cell adds: b_ih + b_hh; of a GRU with b_hn, which r scales, at the end (4h/t)."""
    one = b_hh if b_ih is None else b_ih
    if one is None:
        return None
    b_ih, b_hh = (xp.zeros_like(one) if b is None else b for b in (b_ih, b_hh))
    if kind != "GRU":
        return b_ih + b_hh
    new = 2 * len(one) // 3
    return xp.concatenate((b_ih[:new] + b_hh[:new], b_ih[new:], b_hh[new:]))


def _activate(kind, a, m, bias, state):
    """state = tanh(a + m + bias), or max(a + m + bias, 0). a is written over."""
    a += m
    if bias is not None:
        a += bias
    if kind == "RNN_TANH":
        xp.tanh(a, out=state)
    else:
        xp.maximum(a, 0, out=state)


def _slopes(kind, g, e, state, da):
    """da = (g + e) · tanh', or of ReLU, where `state` is its value."""
    if kind == "RNN_TANH":
        xp.multiply(state, state, out=da)
        xp.subtract(1, da, out=da)
    else:
        xp.greater(state, 0, out=da)
    da *= g + e


def backward(g: xp.ndarray, saved: Saved, need_x: bool = True) -> list[xp.ndarray | None]:
    """The cotangents of x (None unless needed), h0 and c0 (None unless given), weights and biases.

    With ranks, g is the same on all of them, and so are the cotangents of h0 and c0; those of x are
    terms of a sum. Temporary memory: the cotangents of the gates (n, gates·h), of a GRU twice; g in
    C order; two arrays like a step's gates.
    """
    of_inputs, gates = backward_input(g, saved, need_x)
    return [*of_inputs, *backward_weight(*gates)]


def backward_input(
    g: xp.ndarray, saved: Saved, need_x: bool = True
) -> tuple[list[xp.ndarray | None], tuple[xp.ndarray, ...]]:
    """The cotangents of x, h0 and c0, and what backward_weight takes: all else may go."""
    kind, steps, x, w_ih, w_hh, h, gates, extra, given, ranks = saved
    b, n, own = steps[0][2].stop, len(x), ranks.own if ranks else slice(None)
    g = xp.ascontiguousarray(g[:, own])
    d = xp.empty_like(x, shape=(n, len(w_hh)))
    # A GRU's product h W_hhᵀ has other cotangents than x W_ihᵀ, because r scales its third part.
    m = xp.empty_like(d) if kind == "GRU" else d
    dh, dc = xp.zeros_like(x, shape=(b, g.shape[1])), g[n:].copy()
    for before, now, rows in reversed(steps):
        da, e = d[rows], dh[: now.stop - now.start]
        if kind == "LSTM":
            cells = extra[before], extra[now]
            lstm_cell.backward(g[rows], e, dc[: len(da)], gates[rows], *cells, da)
        elif kind == "GRU":
            old = xp.ascontiguousarray(h[before, own])
            gru_cell.backward(g[rows], e, gates[rows], extra[rows], old, (da, m[rows], e))
        else:
            _slopes(kind, g[rows], e, h[now, own], da)
        if rows.start or given[0]:  # nothing asks for the cotangent of zeros
            back = product(m[rows], w_hh)
            back = back if ranks is None else ranks.scatter(back)
            e[...] = e + back if kind == "GRU" else back  # z · h: a GRU's state goes on beside it
    states = [part if ask else None for part, ask in zip((dh, dc), given)]
    if ranks is not None:
        states = [part if part is None else ranks.gather(part) for part in states]
    return [product(d, w_ih) if need_x else None, *states], (d, m, x, _before(h, steps))


def backward_weight(
    d: xp.ndarray, m: xp.ndarray, x: xp.ndarray, before: xp.ndarray
) -> list[xp.ndarray]:
    """The cotangents of both weights and both biases."""
    ones = xp.ones_like(x, shape=len(x))  # BLAS adds rows twice as fast as a reduction
    db = xp.matmul(ones, d)
    of_b_hh = db.copy() if m is d else xp.matmul(ones, m)
    return [xp.matmul(d.T, x), xp.matmul(m.T, before), db, of_b_hh]
