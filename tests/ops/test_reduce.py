"""Reductions over one dimension, several or all, kept or dropped."""

import math

import numpy as np
import pytest
from cases import arrays, distinct, shapes
from hypothesis import given, settings
from hypothesis import strategies as st

import minidist as md
from minidist import ops
from minidist.testing import gradcheck


@st.composite
def dims(draw, ndim: int):
    """None, one dimension, or a tuple of different ones; negative or not."""
    if draw(st.booleans()):
        return draw(st.none() | st.integers(-max(ndim, 1), max(ndim, 1) - 1))
    chosen = draw(st.permutations(range(ndim)))[: draw(st.integers(0, ndim))]
    return tuple(d - ndim if draw(st.booleans()) else d for d in chosen)


@pytest.mark.parametrize("operation", [ops.sum, ops.mean, ops.amax])
@given(data=st.data(), keepdim=st.booleans())
@settings(max_examples=25)
def test_gradients(operation, data, keepdim):
    x = data.draw(distinct())
    dim = data.draw(dims(x.ndim))
    gradcheck(lambda x: operation(x, dim, keepdim), [x])


@given(data=st.data(), x=arrays())
@settings(max_examples=20)
def test_gradients_of_sums_of_nothing(data, x):
    dim = data.draw(dims(x.ndim))
    gradcheck(lambda x: ops.sum(x, dim), [x])


@given(data=st.data(), shape=shapes(max_dims=4))
@settings(max_examples=40)
def test_shapes(data, shape):
    dim, x = data.draw(dims(len(shape))), md.ones(shape)
    axes = range(len(shape)) if dim in (None, ()) else dim if isinstance(dim, tuple) else (dim,)
    gone = {d % len(shape) for d in axes} if shape else set()
    kept = tuple(1 if i in gone else n for i, n in enumerate(shape))
    assert ops.sum(x, dim, keepdim=True).shape == kept
    assert ops.sum(x, dim).shape == tuple(n for i, n in enumerate(shape) if i not in gone)
    np.testing.assert_array_equal(ops.sum(x, dim).data, math.prod(shape[d] for d in gone))


@given(data=st.data(), x=arrays())
@settings(max_examples=25)
def test_gradients_of_softmax(data, x):
    dim = data.draw(st.integers(-max(x.ndim, 1), max(x.ndim, 1) - 1))
    gradcheck(lambda x: ops.softmax(x, dim), [x])


def test_equal_maxima_share_the_gradient():
    x = md.tensor([[1.0, 3.0, 3.0], [2.0, 2.0, 2.0]], requires_grad=True)
    x.amax(1).sum().backward()
    np.testing.assert_allclose(x.grad.data, [[0, 0.5, 0.5], [1 / 3] * 3], rtol=1e-7)


@pytest.mark.parametrize("top", [1e4, -1e4, 1e38])
def test_softmax_of_extremes(top):
    y = md.tensor([[top, top, top], [top, 0.0, -top]]).softmax(1).data
    np.testing.assert_allclose(y[0], [1 / 3] * 3, rtol=1e-6)
    np.testing.assert_array_equal(y[1], [1, 0, 0] if top > 0 else [0, 0, 1])


def test_softmax_of_infinite_logits_gives_them_nothing():
    y = md.tensor([-np.inf, 0.0, 0.0]).softmax(0)
    assert y.tolist() == [0, 0.5, 0.5]


def test_what_cannot_be_reduced():
    x = md.ones(2, 3)
    with pytest.raises(IndexError, match=r"dim 2 of a tensor of 2 dimensions: want -2 to 1"):
        x.sum(2)
    with pytest.raises(RuntimeError, match="twice"):
        x.sum((0, -2))
    with pytest.raises(IndexError, match="nothing to choose from"):
        md.ones(0, 3).amax(0)
    for operation in (ops.mean, lambda t: ops.softmax(t, 0)):
        with pytest.raises(RuntimeError, match=r"of int64: convert with .float\(\) first"):
            operation(md.tensor([1, 2]))
