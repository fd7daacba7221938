"""Recurrent layers, whole sequences at once: tanh or ReLU (Elman 1990), LSTM (Hochreiter &
Schmidhuber 1997, with the forget gate of Gers et al. 2000), GRU (Cho et al. 2014).

Rows: the steps of b sequences of falling lengths lie one after the other, step t with one row for
each of the sizes[t] sequences that still run. With equal lengths that is x (s, b, in) itself, read
as s·b rows.

All inputs are projected by one product and each weight's gradient is one product; step by step
goes only h·W_hhᵀ and, on the way back, its transpose. A sigmoid is ½·tanh(x/2) + ½, so one tanh
serves all gates of an LSTM: each is scale·tanh(scale·x) + shift, of slope scale² - (gate - shift)².

Ready to be split: weights (gates·h, in) are read as (gates, h, in). Hidden units meet in the
product with W_hh alone; all else is done unit by unit. So a rank may hold a range of the units of
every gate, if h is gathered before each such product and dh is summed after its transpose.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from . import linear

GATES = {"RNN_TANH": 1, "RNN_RELU": 1, "LSTM": 4, "GRU": 3}
Steps = list[tuple[slice, slice, slice]]


class Saved(NamedTuple):
    """What backward needs."""

    kind: str
    steps: Steps
    x: np.ndarray  # (n, in)
    w_ih: np.ndarray
    w_hh: np.ndarray
    h: np.ndarray  # (b + n, h): h0 and the state after each row
    gates: np.ndarray  # (n, gates·h), their values
    extra: np.ndarray  # LSTM: c0 and the cells (b + n, h); GRU: W_hn h + b_hn (n, h)


def naive(kind, x, h, c, w_ih, w_hh, b_ih=0, b_hh=0):
    """One step of one kind by its formula: x (b, in), h and c (b, h) -> h, c."""
    sigmoid = lambda x: 1 / (1 + np.exp(-x))
    a, m = (np.split(p, GATES[kind], 1) for p in (x @ w_ih.T + b_ih, h @ w_hh.T + b_hh))
    if kind == "GRU":
        r, z = sigmoid(a[0] + m[0]), sigmoid(a[1] + m[1])
        return (1 - z) * np.tanh(a[2] + r * m[2]) + z * h, c
    a = [p + q for p, q in zip(a, m)]
    if kind == "LSTM":
        c = sigmoid(a[1]) * c + sigmoid(a[0]) * np.tanh(a[2])
        return sigmoid(a[3]) * np.tanh(c), c
    return np.tanh(a[0]) if kind == "RNN_TANH" else np.maximum(a[0], 0), c


# Rows


def steps_of(sizes: Sequence[int]) -> Steps:
    """For each step the rows of its states before it and after it, h0 being the first b, and of
    its gates."""
    b, before, now, steps = sizes[0], 0, sizes[0], []
    for n in sizes:
        steps.append((slice(before, before + n), slice(now, now + n), slice(now - b, now - b + n)))
        before, now = now, now + n
    return steps


def ends(sizes: Sequence[int]) -> np.ndarray:
    """The row of each sequence's last step."""
    rows = np.empty(sizes[0], np.int64)
    for _, _, step in steps_of(sizes):
        rows[: step.stop - step.start] = np.arange(step.start, step.stop)
    return rows


def reversal(sizes: Sequence[int]) -> np.ndarray:
    """The order of rows in which every sequence runs backwards (applied twice: as before)."""
    step, place = np.nonzero(np.arange(sizes[0]) < np.array(sizes)[:, None])
    starts = np.cumsum(sizes) - sizes
    return starts[np.bincount(place)[place] - 1 - step] + place


def _split(rows: np.ndarray, gates: int) -> np.ndarray:
    """(n, gates·h) as (gates, n, h): a view."""
    return rows.reshape(len(rows), gates, rows.shape[1] // gates).swapaxes(0, 1)


def _before(h: np.ndarray, steps: Steps) -> np.ndarray:
    """The state before each row, (n, h)."""
    first, last = steps[0][2], steps[-1][2]
    if last.stop - last.start == first.stop:  # equal lengths: the states themselves
        return h[: last.stop]
    return np.concatenate([h[before] for before, _, _ in steps])


# All kinds


def forward(
    kind: str, x: np.ndarray, h0: np.ndarray | None, c0: np.ndarray | None, w_ih: np.ndarray,
    w_hh: np.ndarray, b_ih: np.ndarray | None, b_hh: np.ndarray | None, sizes: Sequence[int],
) -> tuple[np.ndarray, Saved]:  # fmt: skip
    """x (n, in), h0 and c0 (b, h) or None for 0, weights (gates·h, in or h), biases (gates·h).

    Returns the states (n, h), for an LSTM with the last cells (b, h) after them; and for backward.
    """
    steps, b, n, units = steps_of(sizes), sizes[0], len(x), len(w_hh) // GATES[kind]
    h = np.empty_like(x, shape=(b + n + (b if kind == "LSTM" else 0), units))
    h[:b] = 0 if h0 is None else h0
    bias, extra = b_ih, h
    if b_ih is not None and b_hh is not None:
        bias = b_ih + b_hh
        if kind == "GRU":  # b_hn is scaled by r with the product that it belongs to
            bias[2 * units :] = b_ih[2 * units :]
    gates = linear.forward(x, w_ih, bias)
    if kind == "LSTM":
        extra = np.empty_like(h, shape=(b + n, units))
        extra[:b] = 0 if c0 is None else c0
        _lstm(gates, h, extra, w_hh, steps)
        h[b + n :] = extra[b + ends(sizes)]
    elif kind == "GRU":
        extra = np.empty_like(h, shape=(n, units))
        _gru(gates, h, extra, w_hh, 0 if b_hh is None else b_hh[2 * units :], steps)
    else:
        _rnn(gates, h, w_hh, steps, kind == "RNN_TANH")
        gates = extra = h  # the slopes follow from the states
    return h[b:], Saved(kind, steps, x, w_ih, w_hh, h, gates, extra)


def backward(g: np.ndarray, saved: Saved, need_x: bool = True) -> list[np.ndarray | None]:
    """The cotangents of x (None unless needed), h0, c0, both weights and both biases."""
    kind, steps, x, w_ih, w_hh, h, gates, extra = saved
    b, n = steps[0][2].stop, len(x)
    d = np.empty_like(x, shape=(n, len(w_hh)))
    dh, dc, m = np.zeros_like(h, shape=(b, h.shape[1])), None, d
    if kind == "LSTM":
        dc = g[n:].copy()
        _lstm_back(g, gates, extra, w_hh, steps, d, dh, dc)
    elif kind == "GRU":
        m = np.empty_like(d)  # the cotangents of h W_hhᵀ: not those of x W_ihᵀ for the new state
        _gru_back(g, gates, h, extra, w_hh, steps, d, m, dh)
    else:
        _rnn_back(g, h, w_hh, steps, d, dh, kind == "RNN_TANH")
    ones = np.ones_like(x, shape=n)  # BLAS adds rows twice as fast as a reduction
    return [
        np.matmul(d, w_ih) if need_x else None, dh, dc,
        np.matmul(d.T, x), np.matmul(m.T, _before(h, steps)),
        np.matmul(ones, d), np.matmul(ones, m),
    ]  # fmt: skip


# One loop over time each way for each kind. W h is computed with the units as rows, which a
# GEMM does half again as fast for a few dozen sequences than with the sequences as rows.


def _rnn(a, h, w, steps, tanh):
    product = np.empty_like(a, shape=(len(w), steps[0][2].stop))
    for before, now, rows in steps:
        at, state = a[rows], h[now]
        at += np.matmul(w, h[before].T, out=product[:, : len(at)]).T
        if tanh:
            np.tanh(at, out=state)
        else:
            np.maximum(at, 0, out=state)


def _rnn_back(g, h, w, steps, d, dh, tanh):
    for _, now, rows in reversed(steps):
        dt, state = d[rows], h[now]
        e = dh[: len(dt)]
        e += g[rows]
        if tanh:
            np.multiply(state, state, out=dt)
            np.subtract(1, dt, out=dt)
        else:
            np.greater(state, 0, out=dt)
        dt *= e
        np.matmul(dt, w, out=e)


def _squash(h: np.ndarray, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """scale and shift (rows, 4h) of the gates i, f, g, o: three sigmoids and, third, a tanh."""
    units = np.repeat(np.array([0.5, 0.5, 1, 0.5], h.dtype), h.shape[1])
    scale = np.tile(units, (rows, 1))  # whole rows multiply faster than one that is broadcast
    return scale, (scale < 1) * scale


def _lstm(a, h, c, w, steps):
    most = steps[0][2].stop
    (scale, shift), product = _squash(h, most), np.empty_like(a, shape=(len(w), most))
    scratch = np.empty_like(h, shape=(most, h.shape[1]))
    for before, now, rows in steps:
        at, cell, state = a[rows], c[now], h[now]
        n = len(at)
        at += np.matmul(w, h[before].T, out=product[:, :n]).T
        at *= scale[:n]
        np.tanh(at, out=at)
        at *= scale[:n]
        at += shift[:n]
        i, f, new, o = _split(at, 4)
        np.multiply(f, c[before], out=cell)
        cell += np.multiply(i, new, out=scratch[:n])
        np.tanh(cell, out=state)
        state *= o


def _lstm_back(g, a, c, w, steps, d, dh, dc):
    most, scratch = steps[0][2].stop, np.empty_like(dh)
    scale, shift = _squash(dh, most)
    scale *= scale
    for before, now, rows in reversed(steps):
        at, dt = a[rows], d[rows]
        n = len(at)
        e, ec, t = dh[:n], dc[:n], scratch[:n]
        (i, f, new, o), (di, df, dnew, do) = _split(at, 4), _split(dt, 4)
        np.subtract(at, shift[:n], out=dt)
        dt *= dt
        np.subtract(scale[:n], dt, out=dt)  # the slopes of all gates
        e += g[rows]
        np.tanh(c[now], out=t)
        do *= t
        do *= e
        t *= t
        np.subtract(1, t, out=t)
        t *= o
        t *= e
        ec += t
        for slope, partner in ((di, new), (df, c[before]), (dnew, i)):
            slope *= ec
            slope *= partner
        ec *= f
        np.matmul(dt, w, out=e)


def _gru(a, h, m, w, bias, steps):
    units, most = h.shape[1], steps[0][2].stop
    product, scratch = np.empty_like(a, shape=(len(w), most)), np.empty_like(h[:most])
    for before, now, rows in steps:
        at, old, state, hidden = a[rows], h[before], h[now], m[rows]
        n = len(at)
        p = np.matmul(w, old.T, out=product[:, :n]).T
        both = at[:, : 2 * units]
        both += p[:, : 2 * units]
        both *= 0.5
        np.tanh(both, out=both)
        both *= 0.5
        both += 0.5
        r, z, new = _split(at, 3)
        np.add(p[:, 2 * units :], bias, out=hidden)
        new += np.multiply(r, hidden, out=scratch[:n])
        np.tanh(new, out=new)
        np.subtract(old, new, out=state)
        state *= z
        state += new


def _gru_back(g, a, h, m, w, steps, d, dm, dh):
    units, scratch = dh.shape[1], np.empty_like(dh, shape=(len(dh), 2 * dh.shape[1]))
    for before, _, rows in reversed(steps):
        at, dt, dmt = a[rows], d[rows], dm[rows]
        e, both, slope = dh[: len(at)], at[:, : 2 * units], scratch[: len(at)]
        (r, z, new), (dr, dz, dnew), t = _split(at, 3), _split(dt, 3), slope[:, :units]
        e += g[rows]
        np.subtract(1, z, out=dnew)
        dnew *= e
        np.multiply(new, new, out=t)
        np.subtract(1, t, out=t)
        dnew *= t
        np.subtract(h[before], new, out=dz)
        dz *= e
        np.multiply(dnew, m[rows], out=dr)
        np.subtract(1, both, out=slope)
        slope *= both
        dt[:, : 2 * units] *= slope
        dmt[:, : 2 * units] = dt[:, : 2 * units]
        np.multiply(dnew, r, out=dmt[:, 2 * units :])
        e *= z
        e += np.matmul(dmt, w, out=t)
