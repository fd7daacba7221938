"""Reductions over one dimension, several or all, kept or dropped."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import arrays, distinct, shapes

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


OPERATIONS = {
    "sum": ops.sum,
    "mean": ops.mean,
    "amax": ops.amax,
    "amin": ops.amin,
    "var": lambda x, dim, keepdim: ops.var(x, dim, False, keepdim),
    "var of more": lambda x, dim, keepdim: ops.var(x, dim, keepdim=keepdim, correction=-1),
    "std": lambda x, dim, keepdim: ops.std(x, dim, False, keepdim),
    "norm": lambda x, dim, keepdim: ops.norm(x + 1, "fro", dim, keepdim),
    "norm 1": lambda x, dim, keepdim: ops.norm(x + 1, 1, dim, keepdim),
    "norm 3": lambda x, dim, keepdim: ops.norm(x - 4.5, 3.5, dim, keepdim),
    "norm inf": lambda x, dim, keepdim: ops.norm(x + 1, np.inf, dim, keepdim),
    "norm -inf": lambda x, dim, keepdim: ops.norm(x + 1, -np.inf, dim, keepdim),
    "logsumexp": ops.logsumexp,
}


@pytest.mark.parametrize("name", OPERATIONS)
@given(data=st.data(), keepdim=st.booleans())
@settings(max_examples=15)
def test_gradients(name, data, keepdim):
    x = data.draw(distinct())
    dim = data.draw(dims(x.ndim))
    if name == "std" and math.prod(x.shape[d] for d in _axes(dim, x.ndim)) < 2:
        return  # 0, and its root has no slope
    gradcheck(lambda x: OPERATIONS[name](x, dim, keepdim), [x])


def _axes(dim, ndim):
    axes = range(ndim) if dim in (None, ()) else dim if isinstance(dim, tuple) else (dim,)
    return [d for d in axes if ndim]


@given(data=st.data(), x=arrays(), zeros=st.booleans(), keepdim=st.booleans())
@settings(max_examples=30)
def test_gradients_of_prod_and_cumsum(data, x, zeros, keepdim):
    dim = data.draw(st.integers(-max(x.ndim, 1), max(x.ndim, 1) - 1))
    x = x * (np.abs(x) > 0.7) if zeros else x
    gradcheck(lambda x: x.prod(dim, keepdim), [x])
    gradcheck(lambda x: x.prod(), [x])
    gradcheck(lambda x: x.cumsum(dim), [x])


def test_roots_of_zero_have_no_slope():
    for operation in (ops.std, ops.norm, lambda x: ops.norm(x, 3), lambda x: ops.norm(x, 0.5)):
        x = md.zeros(3, requires_grad=True)
        operation(x).backward()
        assert x.grad.tolist() == [0, 0, 0]


def test_of_nothing_and_of_infinities():
    assert math.isnan(md.ones(0).mean().item()) and math.isnan(md.ones(1).var().item())
    inf = math.inf
    assert md.ones(0).logsumexp(0).item() == md.tensor([-inf, -inf]).logsumexp(0).item() == -inf
    assert md.tensor([inf, 1.0]).logsumexp(0).item() == inf
    assert md.tensor([1e30, 1e30], "float64").logsumexp(0).item() == 1e30


def test_no_singular_values():
    with pytest.raises(ValueError, match="a number or 'fro', not 'nuc'"):
        md.ones(2, 2).norm("nuc")


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
