"""Recurrent kernels: rows of sequences of any lengths, and the loops equal to the formulas."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import gru_cell, lstm_cell, recurrent
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out, numbers

from minidist.comm import all_gather, reduce_scatter, simulate

KINDS = pytest.mark.parametrize("kind", recurrent.GATES)
BOUNDS = {"float32": 5e-6, "float64": 1e-13}
SIZES = st.lists(st.integers(1, 4), min_size=1, max_size=5).map(lambda n: sorted(n, reverse=True))


def weights(kind: str, into: int, units: int, seed: int, dtype: str) -> list[np.ndarray]:
    rows = recurrent.GATES[kind] * units
    shapes = ((rows, into), (rows, units), (rows,), (rows,))
    return [numbers(s, seed + i, dtype) / 2 for i, s in enumerate(shapes)]


def step_by_step(kind, x, h0, c0, ws, sizes):
    """The formula, a step at a time: all states, the last h and c."""
    h, c, start, states = h0.copy(), c0.copy(), 0, []
    for n in sizes:
        h[:n], c[:n] = recurrent.naive(kind, x[start : start + n], h[:n], c[:n], *ws)
        states.append(h[:n].copy())
        start += n
    return np.concatenate(states), h, c


@KINDS
@pytest.mark.parametrize("dtype", BOUNDS)
@given(sizes=SIZES, into=st.integers(1, 3), units=st.integers(1, 3), seed=SEEDS)
@settings(max_examples=15)
def test_forward_is_the_formula(kind, dtype, sizes, into, units, seed):
    ws = weights(kind, into, units, seed, dtype)
    n, b = sum(sizes), sizes[0]
    x, h0, c0 = (numbers(s, seed + 9, dtype) for s in ((n, into), (b, units), (b, units)))
    y, _ = recurrent.forward(kind, x, h0, c0, *ws, sizes)
    states, h, c = step_by_step(kind, x, h0, c0, ws, sizes)
    assert y.dtype == dtype and len(y) == (n + b if kind == "LSTM" else n)
    np.testing.assert_allclose(y[:n], states, atol=BOUNDS[dtype], rtol=BOUNDS[dtype])
    np.testing.assert_array_equal(y[recurrent.ends(sizes)], [y[:n][i] for i in last_rows(sizes)])
    np.testing.assert_allclose(y[recurrent.ends(sizes)], h, atol=BOUNDS[dtype])
    if kind == "LSTM":
        np.testing.assert_allclose(y[n:], c, atol=BOUNDS[dtype], rtol=BOUNDS[dtype])


def last_rows(sizes: list[int]) -> list[int]:
    """By search: the last row of each sequence."""
    owner = [j for n in sizes for j in range(n)]
    return [max(i for i, o in enumerate(owner) if o == j) for j in range(sizes[0])]


@KINDS
def test_no_states_are_zeros_and_no_biases_are_zeros(kind):
    ws, x, sizes = weights(kind, 2, 3, 0, "float64"), numbers((5, 2), 1), [3, 2]
    zeros = np.zeros((3, 3))
    a, _ = recurrent.forward(kind, x, None, None, *ws[:2], None, None, sizes)
    b, _ = recurrent.forward(kind, x, zeros, zeros, *ws[:2], *(0 * w for w in ws[2:]), sizes)
    np.testing.assert_array_equal(a, b)


@KINDS
def test_weights_and_biases_stay(kind):
    """One bias alone is as if the other were zeros."""
    ws, x = weights(kind, 2, 3, 0, "float64"), numbers((4, 2), 1)
    before, zeros = [w.copy() for w in ws], 0 * ws[2]
    forward = lambda *biases: recurrent.forward(kind, x, None, None, *ws[:2], *biases, [2, 2])[0]
    for a, b in (ws[2:], (ws[2], None), (None, ws[3]), (None, None)):
        both = (zeros if bias is None else bias for bias in (a, b))
        np.testing.assert_array_equal(forward(a, b), forward(*both))
    for w, old in zip(ws, before):
        np.testing.assert_array_equal(w, old)


@given(sizes=SIZES)
@settings(max_examples=30)
def test_reversal_turns_each_sequence_round(sizes):
    owner = np.array([j for n in sizes for j in range(n)])
    step = np.repeat(np.arange(len(sizes)), sizes)
    order = recurrent.reversal(sizes)
    np.testing.assert_array_equal(order[order], np.arange(sum(sizes)))
    np.testing.assert_array_equal(owner[order], owner)
    lengths = np.bincount(owner)
    np.testing.assert_array_equal(step[order], lengths[owner] - 1 - step)


@KINDS
@pytest.mark.parametrize("layout", LAYOUTS)
def test_backward_takes_any_layout_and_writes_to_nothing(kind, layout):
    ws, x, sizes = weights(kind, 2, 3, 0, "float64"), numbers((7, 2), 1), [3, 3, 1]
    y, saved = recurrent.forward(kind, x, None, None, *ws, sizes)
    g = numbers(y.shape, 5)
    first = recurrent.backward(g, saved)
    kept = [*(a for a in saved if isinstance(a, np.ndarray)), g]
    before = [np.copy(a) for a in kept]
    again = recurrent.backward(laid_out(g, layout), saved, need_x=False)
    assert again[0] is None and first[0].shape == x.shape
    for a, b in zip(first[1:], again[1:]):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-14)
    for a, b in zip(before, kept):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("version", ["triton", "naive", "numba"])
@pytest.mark.parametrize("kind, cell", [("LSTM", lstm_cell), ("GRU", gru_cell)])
@given(sizes=SIZES, units=st.integers(1, 3), biased=st.booleans(), seed=SEEDS)
@settings(max_examples=8)
def test_steps_go_by_the_version_that_is_asked_for(kind, cell, version, sizes, units, biased, seed):
    """Each way calls the cell's kernel once a step, and every result is the same."""
    if version == "triton":
        pytest.importorskip("triton")
    w_ih, w_hh, *biases = weights(kind, 2, units, seed, "float64")
    biases = biases if biased else (None, None)
    x, states = numbers((sum(sizes), 2), seed + 9), numbers((2, sizes[0], units), seed + 10)

    def run():
        y, saved = recurrent.forward(kind, x, *states, w_ih, w_hh, *biases, sizes)
        return [y, *recurrent.backward(np.cos(y), saved)]

    ours, calls = run(), []
    with pytest.MonkeyPatch.context() as patch, using(version):
        for kernel in (cell.forward, cell.backward):
            counted = lambda *a, f=kernel.versions[version]: calls.append(f) or f(*a)
            patch.setitem(kernel.versions, version, counted)
        theirs = run()
    assert len(calls) == 2 * len(sizes)
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_allclose(b, a, rtol=1e-12, atol=1e-13)


@KINDS
def test_a_batch_of_nobody(kind):
    ws = weights(kind, 2, 3, 0, "float64")
    y, saved = recurrent.forward(kind, np.ones((0, 2)), None, None, *ws, [0, 0])
    assert y.shape == (0, 3)
    assert recurrent.backward(y, saved)[3].shape == ws[0].shape


def test_gates_far_out_saturate_without_a_warning():
    """exp(-x) would overflow here."""
    w = np.full((12, 1), 1e30, np.float32)
    x = np.array([[1.0], [-1.0]], np.float32)
    y, saved = recurrent.forward("LSTM", x, None, None, w, np.zeros((12, 3), "f"), None, None, [2])
    np.testing.assert_allclose(y[:2], [[np.tanh(1)] * 3, [0] * 3], rtol=1e-6)
    back = recurrent.backward(np.ones_like(y), saved)
    assert all(np.isfinite(a).all() for a in back if a is not None)


@KINDS
@pytest.mark.parametrize("given", [False, True])
def test_units_may_be_split_over_ranks(kind, given):
    """Each rank holds a range of the units of every gate; together they have all cotangents."""
    gates, units, into, sizes = recurrent.GATES[kind], 5, 2, [3, 3, 1]
    n, b, cuts = sum(sizes), sizes[0], (slice(0, 2), slice(2, 5))
    ws = weights(kind, into, units, 0, "float64")
    x, h0, c0 = numbers((n, into), 5), numbers((b, units), 6), numbers((b, units), 7)
    states = (h0, c0 if kind == "LSTM" else None) if given else (None, None)
    y, saved = recurrent.forward(kind, x, *states, *ws, sizes)
    g = np.cos(y)
    whole = recurrent.backward(g, saved)
    place = np.arange(gates * units).reshape(gates, units)

    def main(comm):
        own, counts = cuts[comm.rank], [2, 3]
        gather = lambda part: all_gather(comm, np.ascontiguousarray(part.T), counts).T
        scatter = lambda part: (
            reduce_scatter(comm, np.ascontiguousarray(part.T), "sum", "auto", counts).T
        )
        rows = place[:, own].ravel()
        ranks = recurrent.Ranks(own, gather, scatter)
        mine, kept = recurrent.forward(kind, x, *states, *(w[rows] for w in ws), sizes, ranks)
        np.testing.assert_allclose(mine, y, rtol=1e-12, atol=1e-14)
        dx, *of_states, dw_ih, dw_hh, db_ih, db_hh = recurrent.backward(g, kept)
        for found, wanted in zip((dw_ih, dw_hh, db_ih, db_hh), whole[3:]):
            np.testing.assert_allclose(found, wanted[rows], rtol=1e-12, atol=1e-14)
        for found, wanted in zip(of_states, whole[1:3]):
            assert (found is None) == (wanted is None)
            if wanted is not None:
                np.testing.assert_allclose(found, wanted, rtol=1e-12, atol=1e-14)
        return dx

    np.testing.assert_allclose(sum(simulate(main, 2)), whole[0], rtol=1e-12, atol=1e-14)
