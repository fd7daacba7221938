"""Picking by index and putting back: gradients, and PyTorch's order of dimensions."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, arrays, numbers, shapes

import minidist as md
from minidist.testing import gradcheck


@st.composite
def picked(draw, min_side=1):
    """An array, one of its dimensions, and indices along it, smaller elsewhere."""
    shape = draw(shapes(min_dims=1, min_side=min_side))
    dim = draw(st.integers(0, len(shape) - 1))
    wanted = [draw(st.integers(0, n)) for n in shape]
    wanted[dim] = draw(st.integers(0, 4))
    rng = np.random.default_rng(draw(SEEDS))
    return draw(arrays(shape)), dim, rng.integers(0, shape[dim], wanted)


def one_by_one(x, dim, index):
    """y[i, j, ...] = x[i, index[i, j, ...], ...], in a loop."""
    y = np.empty(index.shape)
    for at in np.ndindex(index.shape):
        y[at] = x[(*at[:dim], index[at], *at[dim + 1 :])]
    return y


@given(case=picked())
@settings(max_examples=40)
def test_gather(case):
    x, dim, index = case
    np.testing.assert_array_equal(md.gather(md.Tensor(x), dim, md.Tensor(index)).data,
                                  one_by_one(x, dim, index))  # fmt: skip
    gradcheck(lambda x: x.gather(dim, md.Tensor(index)), [x])


@given(case=picked(), extra=st.integers(0, 2), seed=SEEDS)
@settings(max_examples=40)
def test_scatter_add_is_the_transpose_of_gather(case, extra, seed):
    x, dim, index = case
    source = numbers(tuple(n + extra for n in index.shape), seed)
    y = md.Tensor(x).scatter_add(dim, md.Tensor(index), md.Tensor(source))
    used = source[tuple(map(slice, index.shape))]
    np.testing.assert_allclose(((y.data - x) * x).sum(), (one_by_one(x, dim, index) * used).sum(),
                               rtol=1e-9, atol=1e-12)  # fmt: skip
    gradcheck(lambda x, s: x.scatter_add(dim, md.Tensor(index), s), [x, source])


@given(data=st.data(), x=arrays())
@settings(max_examples=25)
def test_gradients_of_selections(data, x):
    n = max(x.ndim, 1)
    dim = data.draw(st.integers(-n, n - 1))
    size = x.shape[dim] if x.ndim else 1
    count = data.draw(st.integers(0, 4)) if x.ndim and size else int(x.ndim == 0)
    index = md.Tensor(np.random.default_rng(data.draw(SEEDS)).integers(0, max(size, 1), count))
    gradcheck(lambda x: x.index_select(dim, index), [x])
    gradcheck(lambda x: x.masked_select(x > 0), [x])
    gradcheck(lambda x: x[x > 0], [x])


def test_masks_and_inputs_broadcast():
    x, mask = numbers((3, 1), 0), np.array([True, False, True, True])
    gradcheck(lambda x: x.masked_select(md.Tensor(mask)), [x])
    gradcheck(lambda x: x[0].masked_select(md.Tensor(mask)), [x])


MIXED = {
    "an int, then a list": ((0, slice(None), [1, 2]), lambda x: x[0][:, [1, 2]]),
    "a list, then an int": (([1, 0], slice(None), -1), lambda x: x[:, :, -1][[1, 0]]),
    "None between": (([1, 0], None, [2, 2]), lambda x: x[[1, 0], None, [2, 2]]),
    "steps and a list": ((slice(None, None, 2), [0, 2, 2]), lambda x: x[::2][:, [0, 2, 2]]),
    "an ellipsis, an int": ((..., [2, 0], 1), lambda x: x[..., 1][..., [2, 0]]),
    "an idle ellipsis": ((slice(1), [0], ..., [1, 2]), lambda x: x[:1, [0, 0], [1, 2]]),
    "a mask and an int": ((np.array([True, False]), 1), lambda x: x[:, 1][[0]]),
}


@pytest.mark.parametrize("name", MIXED)
def test_ints_and_slices_choose_before_arrays(name):
    index, expected = MIXED[name]
    x = numbers((2, 3, 4), 0)
    np.testing.assert_array_equal(md.Tensor(x)[index].data, expected(x))
    gradcheck(lambda x: x[index], [x])


def test_one_hot():
    y = md.nn.functional.one_hot(md.tensor([[0, 2]]), 4)
    assert y.dtype == md.int64 and y.tolist() == [[[1, 0, 0, 0], [0, 0, 1, 0]]]
    assert md.nn.functional.one_hot(md.tensor(1)).tolist() == [0, 1]
    assert md.nn.functional.one_hot(md.ones(0).long(), 3).shape == (0, 3)


def test_nonzero():
    x = md.tensor([[0, 5], [7, 0]])
    assert x.nonzero().tolist() == [[0, 1], [1, 0]] and md.tensor(3).nonzero().shape == (1, 0)


WRONG = {
    "an index of uint8: convert": (IndexError, lambda x: x[md.tensor([1], "uint8")]),
    "an index of float32": (IndexError, lambda x: x[md.tensor([0.5])]),
    "indexing a tensor of shape": (IndexError, lambda x: x[[5]]),
    "gather: indices 3 to 3, but dimension 1 has only 3 elements": (
        RuntimeError, lambda x: x.gather(1, md.tensor([[3]]))),
    "gather along 0: index .1,. for .2, 3.": (
        RuntimeError, lambda x: x.gather(0, md.tensor([0]))),
    "scatter_add: dtypes": (
        RuntimeError, lambda x: x.scatter_add(0, md.tensor([[0]]), md.ones(1, 1))),
    "want a vector of 0 to 1": (IndexError, lambda x: x.index_select(0, md.tensor([2]))),
    "masked_select: a mask of int64": (RuntimeError, lambda x: x.masked_select(md.tensor([1]))),
    "one_hot: 0 to 2 are not classes 0 to 1": (
        RuntimeError, lambda x: md.nn.functional.one_hot(md.tensor([0, 2]), 2)),
}  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_fit_is_an_error(words):
    error, function = WRONG[words]
    with pytest.raises(error, match=words):
        function(md.ones(2, 3, dtype="float64"))
