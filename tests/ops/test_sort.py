"""Choosing and ordering: values, indices, ties, and gradients to where they came from."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, distinct, shapes

import minidist as md
from minidist.testing import gradcheck


@st.composite
def along(draw):
    x = draw(distinct())
    n = max(x.ndim, 1)
    return x, draw(st.integers(-n, n - 1))


@given(case=along(), keepdim=st.booleans())
@settings(max_examples=30)
def test_max_and_min(case, keepdim):
    x, dim = case
    for name in ("max", "min"):
        values, indices = getattr(md.Tensor(x), name)(dim, keepdim)
        expected = getattr(x, name)(dim if x.ndim else None, keepdims=keepdim)
        np.testing.assert_array_equal(values.data, expected)
        assert indices.dtype == md.int64 and indices.shape == values.shape
        gradcheck(lambda x, f=name: getattr(x, f)(dim, keepdim).values, [x])
        gradcheck(lambda x, f=name: getattr(x, f)(), [x])


@given(case=along(), descending=st.booleans())
@settings(max_examples=30)
def test_sort(case, descending):
    x, dim = case
    values, indices = md.sort(md.Tensor(x), dim, descending)
    expected = np.sort(x.reshape(x.shape or 1), dim)
    np.testing.assert_array_equal(
        values.data.reshape(expected.shape), np.flip(expected, dim) if descending else expected
    )
    np.testing.assert_array_equal(indices.data, md.argsort(md.Tensor(x), dim, descending).data)
    gradcheck(lambda x: x.sort(dim, descending).values, [x])


@given(data=st.data(), case=along(), largest=st.booleans())
@settings(max_examples=40)
def test_topk_is_the_head_of_sort(data, case, largest):
    x, dim = case
    k = data.draw(st.integers(0, x.shape[dim])) if x.ndim else 1
    values, indices = md.Tensor(x).topk(k, dim, largest)
    whole = md.Tensor(x).sort(dim, descending=largest)
    head = (slice(None),) * (dim % max(x.ndim, 1)) + (slice(k),)
    for ours, all_of_it in zip((values, indices), whole):
        expected = all_of_it.data[head] if x.ndim else all_of_it.data
        np.testing.assert_array_equal(ours.data, expected)
    gradcheck(lambda x: x.topk(k, dim, largest).values, [x])


@given(shape=shapes(min_dims=1, max_dims=2, min_side=1, max_side=6), seed=SEEDS)
@settings(max_examples=25)
def test_equal_elements_stay_in_order(shape, seed):
    x = md.Tensor(np.random.default_rng(seed).integers(0, 3, shape))
    for descending in (False, True):
        values, indices = (t.data for t in x.sort(-1, descending))
        same = values[..., 1:] == values[..., :-1]
        assert (np.diff(indices)[same] > 0).all()


def test_not_a_number_is_the_largest():
    x = md.tensor([2.0, np.nan, 1.0])
    assert x.sort().indices.tolist() == [2, 0, 1] and x.topk(1).indices.tolist() == [1]
    assert x.argmax().item() == x.max(0).indices.item() == 1


def test_the_first_of_equal_maxima_gets_the_gradient_and_the_whole_shares_it():
    x = md.tensor([2.0, 2.0, 1.0], requires_grad=True)
    x.max(0).values.backward()
    assert x.grad.tolist() == [1, 0, 0]
    x.grad = None
    x.max().backward()
    assert x.grad.tolist() == [0.5, 0.5, 0]


def test_indices_and_argmax_want_no_gradient():
    x = md.tensor([[1.0, 3.0, 2.0]], requires_grad=True)
    for t in (x.argmax(1), x.argsort(1), x.topk(2).indices, x.max(1).indices, x.sort()[1]):
        assert not t.requires_grad and t.dtype == md.int64


def test_what_cannot_be_chosen():
    for choose in (md.argmax, md.max, md.argmin, md.min):
        with pytest.raises(IndexError, match=r"over \[0\] of shape \(0, 3\): nothing to choose"):
            choose(md.ones(0, 3), 0)
    with pytest.raises(RuntimeError, match="topk: k = 4 of 3 elements along -1"):
        md.ones(2, 3).topk(4)
