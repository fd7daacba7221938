"""A whole sequence as one operation: gradients of every input, and rows taken and put."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import recurrent as kernel
from support.cases import SEEDS, arrays, numbers

import minidist as md
from minidist.ops.recurrent import backwards, put_rows, recurrent, take_rows
from minidist.testing import gradcheck

KINDS = pytest.mark.parametrize("kind", kernel.GATES)
SIZES = st.lists(st.integers(1, 3), min_size=1, max_size=3).map(lambda n: sorted(n, reverse=True))


def inputs(kind, sizes, into, units, seed):
    """x, h0, (c0,) both weights and both biases."""
    rows, b = kernel.GATES[kind] * units, sizes[0]
    states = [(b, units)] * (2 if kind == "LSTM" else 1)
    shapes = [(sum(sizes), into), *states, (rows, into), (rows, units), (rows,), (rows,)]
    return [numbers(s, seed + i) / 2 for i, s in enumerate(shapes)]


def run(kind, sizes, x, *rest):
    rest = rest if kind == "LSTM" else (rest[0], None, *rest[1:])
    return recurrent(kind, x, *rest, sizes=sizes)


@KINDS
@given(sizes=SIZES, into=st.integers(1, 2), units=st.integers(1, 2), seed=SEEDS)
@settings(max_examples=20)
def test_gradients(kind, sizes, into, units, seed):
    def everything(*x):
        y, h, c = run(kind, sizes, *x)
        return md.cat([v.reshape(-1) for v in (y * y, h, c) if v is not None])

    gradcheck(everything, inputs(kind, sizes, into, units, seed))


@KINDS
def test_gradients_without_states_and_biases(kind):
    x, *_, w_ih, w_hh, _, _ = inputs(kind, [2, 2, 1], 2, 2, 0)
    gradcheck(
        lambda x, a, b: recurrent(kind, x, None, None, a, b, sizes=[2, 2, 1])[0], [x, w_ih, w_hh]
    )


def test_the_whole_sequence_is_one_node():
    leaves = (md.Tensor(a, requires_grad=True) for a in inputs("GRU", [2] * 4, 2, 3, 0))
    y, _, _ = run("GRU", [2] * 4, *leaves)
    assert all(isinstance(s, md.autograd.tape.Leaf) for s in y.node.sources if s is not None)


def test_an_input_without_gradient_costs_no_product():
    arrays = inputs("LSTM", [2] * 3, 2, 3, 0)
    x, *rest = (md.Tensor(a, requires_grad=i > 0) for i, a in enumerate(arrays))
    recurrent("LSTM", x, *rest, sizes=[2] * 3)[0].sum().backward()
    assert x.grad is None and all(t.grad is not None for t in rest)


@KINDS
def test_a_forgotten_last_state_is_killed(kind, monkeypatch):
    """The control: backward that starts one step early passes no check."""
    back = kernel.backward
    monkeypatch.setattr(kernel, "backward", lambda g, saved, need_x: back(
        np.concatenate([g[:4], 0 * g[4:]]), saved, need_x))  # fmt: skip
    with pytest.raises(AssertionError, match="analytic"):
        gradcheck(lambda *x: run(kind, [2] * 3, *x)[1], inputs(kind, [2] * 3, 2, 2, 0))


@given(data=st.data(), n=st.integers(0, 5), width=st.integers(0, 2), seed=SEEDS)
@settings(max_examples=10)
def test_rows_taken_and_put(data, n, width, seed):
    index = np.random.default_rng(seed).permutation(6)[:n]
    gradcheck(lambda x: take_rows(x, index), [data.draw(arrays((6, width)))])
    gradcheck(lambda x: put_rows(x, index, 6, 7.0), [data.draw(arrays((n, width)))])
    x = md.Tensor(numbers((n, width), seed))
    y = put_rows(x, index, 6, 7.0)
    np.testing.assert_array_equal(take_rows(y, index).data, x.data)
    assert (np.delete(y.data, index, 0) == 7).all()


def test_backwards():
    x = md.Tensor(np.arange(6.0)[:, None])  # 0 2 4 5 and 1 3
    np.testing.assert_array_equal(backwards(x, [2, 2, 1, 1]).data[:, 0], [5, 3, 4, 1, 2, 0])


def test_dtypes_must_agree():
    a = [md.Tensor(v) for v in inputs("GRU", [2], 2, 2, 0)]
    with pytest.raises(RuntimeError, match="GRU: dtypes float32 and float64"):
        run("GRU", [2], a[0].float(), *a[1:])
