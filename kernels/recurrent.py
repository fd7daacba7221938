"""Recurrent layers, whole sequences at once: tanh or ReLU (Elman 1990), LSTM (Hochreiter &
Schmidhuber 1997, with the forget gate of Gers et al. 2000), GRU (Cho et al. 2014).

Rows: the steps of b sequences of falling lengths lie one after the other, step t with one row for
each of the sizes[t] sequences that still run. With equal lengths that is x (s, b, in) itself, read
as s·b rows.

All inputs are projected by one product and each weight's gradient is one product; step by step
goes only h·W_hhᵀ and, on the way back, its transpose; what is done unit by unit is in lstm_cell
and gru_cell. Sigmoids take half of what they are given there: a power of 2, so scaling the weights
once instead rounds nothing differently.

Ready to be split: weights (gates·h, in) are read as (gates, h, in). Hidden units meet in the
product with W_hh alone; all else is done unit by unit. So a rank may hold a range of the units of
every gate, if h is gathered before each such product and dh is summed after its transpose.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from . import arrays as xp
from . import gru_cell, lstm_cell
from .product import product, turned

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
ROWS = 128  # that are projected at a time, if steps have fewer: so few stay in cache
Steps = list[tuple[slice, slice, slice]]


class Saved(NamedTuple):
    """What backward needs."""

    kind: str
    steps: Steps
    x: xp.ndarray  # (n, in)
    w_ih: xp.ndarray
    w_hh: xp.ndarray
    h: xp.ndarray  # (b + n, h): h0 and the state after each row
    gates: xp.ndarray  # (n, gates·h), their values, each step's gate by gate; of others: h, too
    extra: xp.ndarray  # LSTM: c0 and the cells (b + n, h); GRU: W_hn h + b_hn (n, h)


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


def _by_gate(rows: xp.ndarray, gates: int) -> xp.ndarray:
    """The memory of rows (n, gates·h) as (gates, n, h)."""
    return rows.reshape(gates, len(rows), rows.shape[1] // gates)


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
) -> tuple[xp.ndarray, Saved]:  # fmt: skip
    """x (n, in), h0 and c0 (b, h) or None for 0, weights (gates·h, in or h), biases (gates·h).

    Returns the states (n, h), for an LSTM with the last cells (b, h) after them; and for backward.
    Temporary memory: the weights three times, gates of a step and of ROWS rows (or a step's).
    """
    steps, b, n, units = steps_of(sizes), sizes[0], len(x), len(w_hh) // GATES[kind]
    h = xp.empty_like(x, shape=(b + n + (b if kind == "LSTM" else 0), units))
    h[:b] = 0 if h0 is None else h0
    bias = b_ih
    if b_ih is not None and b_hh is not None:
        bias = b_ih + b_hh
        if kind == "GRU":  # b_hn is scaled by r with the product that it belongs to
            bias[2 * units :] = b_ih[2 * units :]
    w_x, w = (turned(w) if b > 1 else w.copy().T for w in (w_ih, w_hh))
    gates = extra = h
    if kind in ("LSTM", "GRU"):
        gates = xp.empty_like(x, shape=(n, len(w_hh)))
        w_x, w = _halved(w_x, units), _halved(w, units)
        bias = None if bias is None else _halved(bias, units)
    ready = _projected(x, w_x, bias, steps)
    if kind == "LSTM":
        extra = xp.empty_like(h, shape=(b + n, units))
        extra[:b] = 0 if c0 is None else c0
        _lstm(gates, h, extra, w, ready)
        h[b + n :] = extra[b + xp.at_home_of(h, ends(sizes))]
    elif kind == "GRU":
        extra = xp.empty_like(h, shape=(n, units))
        _gru(gates, h, extra, w, None if b_hh is None else b_hh[2 * units :], ready)
    else:
        _rnn(h, w, ready, kind == "RNN_TANH")
    return h[b:], Saved(kind, steps, x, w_ih, w_hh, h, gates, extra)


def _halved(a: xp.ndarray, units: int) -> xp.ndarray:
    """a (..., gates·h), halved for sigmoids: all gates but the third."""
    a = xp.array(a) if a.ndim == 1 else a
    a[..., : 2 * units] *= 0.5
    a[..., 3 * units :] *= 0.5
    return a


def _projected(
    x: xp.ndarray, w: xp.ndarray, bias: xp.ndarray | None, steps: Steps
) -> Iterator[tuple[tuple[slice, slice, slice], xp.ndarray]]:
    """Each step and its rows of x w + bias, in one buffer: still in cache when they are used."""
    buffer, first, ends = None, 0, [rows.stop for _, _, rows in steps]
    at_once, ready = len(x) if xp.on_gpu(x) else ROWS, 0
    for step in steps:
        start, stop = step[2].start, step[2].stop
        if stop > ready or buffer is None:
            first, ready = start, ends[bisect_right(ends, max(stop, start + at_once)) - 1]
            if buffer is None or len(buffer) < ready - first:
                buffer = xp.empty_like(x, shape=(ready - first, w.shape[1]))
            part = product(x[first:ready], w, buffer[: ready - first], lined=True)
            if bias is not None:
                part += bias
        yield step, buffer[start - first : stop - first]


def _of_weights(d: xp.ndarray, m: xp.ndarray, x: xp.ndarray, h: xp.ndarray) -> list[xp.ndarray]:
    """dᵀ x and mᵀ h, as one product if d is m and there are rows enough to pay for its copies."""
    if d is not m or len(d) < d.shape[1]:
        return [xp.matmul(d.T, x), xp.matmul(m.T, h)]
    both = xp.matmul(d.T, xp.concatenate([x, h], 1))
    return [part.copy() for part in xp.split(both, [x.shape[1]], 1)]


def backward(g: xp.ndarray, saved: Saved, need_x: bool = True) -> list[xp.ndarray | None]:
    """The cotangents of x (None unless needed), h0, c0, both weights and both biases.

    Temporary memory: those of the gates (n, gates·h), of a GRU twice; x and h side by side, and the
    weights' cotangents once more; six arrays like a step's gates.
    """
    of_inputs, gates = backward_input(g, saved, need_x)
    return [*of_inputs, *backward_weight(*gates)]


def backward_input(
    g: xp.ndarray, saved: Saved, need_x: bool = True
) -> tuple[list[xp.ndarray | None], tuple[xp.ndarray, ...]]:
    """The cotangents of x, h0 and c0, and what backward_weight takes: all else may go."""
    kind, steps, x, w_ih, w_hh, h, gates, extra = saved
    b, n = steps[0][2].stop, len(x)
    d = xp.empty_like(x, shape=(n, len(w_hh)))
    dh, dc, m = xp.zeros_like(h, shape=(b, h.shape[1])), None, d
    if kind == "LSTM":
        dc = g[n:].copy()
        _lstm_back(g, gates, extra, w_hh, steps, d, dh, dc)
    elif kind == "GRU":
        m = xp.empty_like(d)  # the cotangents of h W_hhᵀ: not those of x W_ihᵀ for the new state
        _gru_back(g, gates, h, extra, w_hh, steps, d, m, dh)
    else:
        _rnn_back(g, h, w_hh, steps, d, dh, kind == "RNN_TANH")
    return [product(d, w_ih) if need_x else None, dh, dc], (d, m, x, _before(h, steps))


def backward_weight(
    d: xp.ndarray, m: xp.ndarray, x: xp.ndarray, before: xp.ndarray
) -> list[xp.ndarray]:
    """The cotangents of both weights and both biases."""
    ones = xp.ones_like(x, shape=len(x))  # BLAS adds rows twice as fast as a reduction
    return [*_of_weights(d, m, x, before), xp.matmul(ones, d), xp.matmul(ones, m)]


# One loop over time each way for each kind; rows of a are projected inputs, without the state


def _rnn(h, w, ready, tanh):
    for (before, now, _), a in ready:
        a += product(h[before], w, lined=True)
        if tanh:
            xp.tanh(a, out=h[now])
        else:
            xp.maximum(a, 0, out=h[now])


def _rnn_back(g, h, w, steps, d, dh, tanh):
    for _, now, rows in reversed(steps):
        dt, state = d[rows], h[now]
        e = dh[: len(dt)]
        e += g[rows]
        if tanh:
            xp.multiply(state, state, out=dt)
            xp.subtract(1, dt, out=dt)
        else:
            xp.greater(state, 0, out=dt)
        dt *= e
        product(dt, w, out=e)


def _lstm(gates, h, c, w, ready):
    for (before, now, rows), a in ready:
        m, values = product(h[before], w, lined=True), _by_gate(gates[rows], 4)
        lstm_cell.forward(a, m, c[before], True, (h[now], c[now], values))


def _lstm_back(g, gates, c, w, steps, d, dh, dc):
    for before, now, rows in reversed(steps):
        da, values = d[rows], _by_gate(gates[rows], 4)
        e = dh[: len(da)]
        lstm_cell.backward(g[rows], e, dc[: len(da)], values, c[before], c[now], da)
        product(da, w, out=e)


def _gru(gates, h, hidden, w, bias, ready):
    for (before, now, rows), a in ready:
        m, values = product(h[before], w, lined=True), _by_gate(gates[rows], 3)
        gru_cell.forward(a, m, h[before], bias, True, (h[now], hidden[rows], values))


def _gru_back(g, gates, h, hidden, w, steps, d, dm, dh):
    for before, _, rows in reversed(steps):
        e, values = dh[: rows.stop - rows.start], _by_gate(gates[rows], 3)
        out = d[rows], dm[rows], e
        gru_cell.backward(g[rows], e, values, hidden[rows], h[before], out)
        e += product(dm[rows], w)
