"""The transpose of picking by an index: sums of runs ≡ np.add.at, along every axis."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import embedding
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, shapes

import minidist as md


@st.composite
def picks(draw):
    """A shape, and an index of it whose one array may pick anything twice, from the end too."""
    shape = draw(shapes(min_dims=1, min_side=0, max_side=4))
    axis = draw(st.integers(0, len(shape) - 1))
    n, size = shape[axis], draw(shapes(min_dims=1, max_dims=2, min_side=0, max_side=5))
    count = int(np.prod(size)) if n else 0
    places = draw(st.lists(st.integers(-n, n - 1), min_size=count, max_size=count)) if n else []
    array = np.array(places, np.int64).reshape(size if n else (0,))
    index = (slice(None),) * axis + (array,)
    return shape, index + (slice(None),) * draw(st.integers(0, len(shape) - axis - 1))


def added(g, index, shape):
    whole = np.zeros(shape, g.dtype)
    np.add.at(whole, index, g)
    return whole


@pytest.mark.parametrize("version", ["numba", "triton", "naive"])
@given(pick=picks(), seed=SEEDS, layout=st.sampled_from(LAYOUTS))
@settings(max_examples=40)
def test_runs_are_add_at(version, pick, seed, layout):
    if version == "triton":
        pytest.importorskip("triton")
    shape, index = pick
    g = laid_out(numbers(np.empty(shape)[index].shape, seed), layout)
    before, calls = g.copy(), []
    with pytest.MonkeyPatch.context() as patch, using(version):
        backward = embedding.backward
        patch.setattr(embedding, "backward", lambda *a: calls.append(a) or backward(*a))
        found = embedding.put_back(g, index, shape)
    np.testing.assert_allclose(found, added(g, index, shape), rtol=1e-12, atol=1e-12)
    np.testing.assert_array_equal(g, before)
    assert len(calls) == 1


@pytest.mark.parametrize("index", [(np.array([1, 1, 0]), np.array([2, 2, -1])),
                                   (0, np.array([1, 1])), (np.array([[0, 1], [1, 1]]), 1),
                                   (None, np.array([0, 0])), (..., np.array([2, 2]))])  # fmt: skip
def test_other_indices_too(index):
    shape = 2, 3
    g = numbers(np.empty(shape)[index].shape, 0)
    np.testing.assert_allclose(embedding.put_back(g, index, shape), added(g, index, shape))


def test_rows_of_a_tensor_that_are_picked_twice_get_both_gradients():
    """In each of two dimensions."""
    x, index = md.tensor(numbers((50, 40), 0), requires_grad=True), np.arange(900) * 7 % 40
    for y, axis in ((x[index], 0), (x[:, index - 40], 1)):
        x.grad = None
        g = numbers(y.shape, 1)
        y.backward(md.tensor(g))
        at = (index,) if axis == 0 else (slice(None), index)
        np.testing.assert_allclose(x.grad.data, added(g, at, x.shape), atol=1e-12)
