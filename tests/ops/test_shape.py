"""Operations that rearrange: gradients, views, and words for what does not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import basic_indices
from support.cases import arrays, numbers, shapes

import minidist as md
from minidist import ops
from minidist.testing import gradcheck

SHAPE = (2, 1, 3)
X = numbers(SHAPE, 5)

REARRANGED = {
    "reshape": (lambda x: x.reshape(3, 2), (3, 2)),
    "reshape with -1": (lambda x: x.reshape(-1, 2), (3, 2)),
    "reshape by a tuple": (lambda x: x.reshape((6,)), (6,)),
    "view": (lambda x: x.view(1, 6), (1, 6)),
    "flatten": (lambda x: x.flatten(), (6,)),
    "flatten the last": (lambda x: x.flatten(1), (2, 3)),
    "flatten the first": (lambda x: x.flatten(0, -2), (2, 3)),
    "permute": (lambda x: x.permute(2, 0, 1), (3, 2, 1)),
    "permute by negative": (lambda x: x.permute((-1, 0, -2)), (3, 2, 1)),
    "transpose": (lambda x: x.transpose(0, -1), (3, 1, 2)),
    "T": (lambda x: x.T, (3, 1, 2)),
    "squeeze": (lambda x: x.squeeze(), (2, 3)),
    "squeeze one": (lambda x: x.squeeze(-2), (2, 3)),
    "squeeze what is not 1": (lambda x: x.squeeze(0), SHAPE),
    "squeeze several": (lambda x: x.squeeze((0, 1)), (2, 3)),
    "unsqueeze": (lambda x: x.unsqueeze(-1), (2, 1, 3, 1)),
    "unsqueeze first": (lambda x: x.unsqueeze(-4), (1, 2, 1, 3)),
    "expand": (lambda x: x.expand(2, 4, 3), (2, 4, 3)),
    "expand with -1 and more": (lambda x: x.expand(5, -1, 2, -1), (5, 2, 2, 3)),
}


@pytest.mark.parametrize("name", REARRANGED)
def test_rearranged(name):
    function, shape = REARRANGED[name]
    assert function(md.Tensor(X)).shape == shape
    for layout in (X, np.asfortranarray(X), X[::-1].copy()[::-1]):
        gradcheck(function, [layout.copy("K")])


@pytest.mark.parametrize("name", REARRANGED)
def test_without_copies_where_a_view_can_be_had(name):
    x = md.Tensor(X)
    assert np.shares_memory(REARRANGED[name][0](x).data, X)


@given(data=st.data(), shape=shapes(min_dims=1, max_dims=4))
@settings(max_examples=30)
def test_permutations_of_any_shape(data, shape):
    order, x = data.draw(st.permutations(range(len(shape)))), data.draw(arrays(shape))
    y = ops.permute(md.Tensor(x), *order)
    np.testing.assert_array_equal(y.data, x.transpose(order))
    gradcheck(lambda x: ops.permute(x, *order), [x])


def test_of_no_dimensions():
    x = md.tensor(2.0)
    assert x.squeeze().shape == x.squeeze(0).shape == x.permute().shape == x.T.shape == ()
    assert x.transpose(0, -1).shape == () and x.flatten().shape == x.unsqueeze(0).shape == (1,)
    assert x.expand(2, 3).shape == (2, 3) and x.reshape(()).shape == ()


# Indexing


@given(data=st.data(), shape=shapes(max_dims=3))
@settings(max_examples=60)
def test_gradients_of_basic_indices(data, shape):
    index = data.draw(basic_indices(shape, allow_newaxis=True, allow_ellipsis=True))
    x = data.draw(arrays(shape))
    np.testing.assert_array_equal(md.Tensor(x)[index].data, x[index])
    gradcheck(lambda x: x[index], [x])


INDICES = {
    "rows, some twice": ([0, 2, 0, -1],),
    "an array": (np.array([[0, 1], [1, 1]]),),
    "pairs": ([0, 1, 1], [2, 0, 0]),
    "an array and a slice": (slice(1, None), [1, 1]),
    "a column of arrays": (np.array([[0], [1]]), np.array([0, 0, 3])),
    "a mask of rows": (np.array([True, False, True]),),
    "a mask of all": (np.arange(12).reshape(3, 4) % 3 == 0,),
    "a mask of nothing": (np.zeros((3, 4), bool),),
    "None and an array": (None, [0, 0]),
    "one number as an array": (np.array(1),),
}


@pytest.mark.parametrize("name", INDICES)
def test_gradients_of_index_arrays(name):
    index = INDICES[name] if len(INDICES[name]) > 1 else INDICES[name][0]
    x = numbers((3, 4), 2)
    np.testing.assert_array_equal(md.Tensor(x)[index].data, x[index])
    gradcheck(lambda x: x[index], [x])


def test_tensors_as_indices():
    x = md.Tensor(numbers((3, 4), 2))
    rows, columns = md.tensor([0, 2]), md.tensor([1, 1])
    np.testing.assert_array_equal(x[rows, columns].data, x.data[[0, 2], [1, 1]])
    np.testing.assert_array_equal(x[x > 0].data, x.data[x.data > 0])


@given(data=st.data(), sizes=st.lists(st.integers(0, 3), min_size=1, max_size=4))
@settings(max_examples=25)
def test_gradients_of_cat(data, sizes):
    dim = data.draw(st.integers(-2, 1))
    parts = [data.draw(arrays((2, n) if dim % 2 else (n, 2))) for n in sizes]
    np.testing.assert_array_equal(md.cat(list(map(md.Tensor, parts)), dim).data,
                                  np.concatenate(parts, dim))  # fmt: skip
    gradcheck(lambda *parts: md.cat(parts, dim), parts)


def test_cat_of_one_tensor_twice_and_of_two_dtypes():
    gradcheck(lambda x: md.cat([x, x, x * 2]), [X])
    a = md.tensor([1.0], requires_grad=True)
    b = md.tensor([2.0], dtype="float64", requires_grad=True)
    y = md.cat([a, b])
    y.sum().backward()
    assert (y.dtype, a.grad.dtype, b.grad.dtype) == (md.float64, md.float32, md.float64)


WRONG = {
    "reshape: 6 elements of shape .* do not fill": (RuntimeError, lambda x: x.reshape(4)),
    "reshape: negative size": (RuntimeError, lambda x: x.reshape(-2, 3)),
    "do not fill .-1, -1.": (RuntimeError, lambda x: x.reshape(-1, -1)),
    "start_dim 2 comes after": (RuntimeError, lambda x: x.flatten(2, 0)),
    "dim 3 of a tensor of 3": (IndexError, lambda x: x.flatten(3)),
    "dim 5": (IndexError, lambda x: x.permute(0, 1, 5)),
    "each of the 3 dimensions once": (RuntimeError, lambda x: x.permute(0, 1)),
    "names a dimension twice": (RuntimeError, lambda x: x.permute(0, 1, 1)),
    "dim -4 of a tensor of 3": (IndexError, lambda x: x.transpose(-4, 0)),
    "dim 3 of a tensor of 3 dim": (IndexError, lambda x: x.squeeze(3)),
    "dim 4 of a tensor of 4": (IndexError, lambda x: x.unsqueeze(4)),
    "only sizes of 1 can grow": (RuntimeError, lambda x: x.expand(4, 1, 3)),
    "a new dimension needs a size": (RuntimeError, lambda x: x.expand(-1, 2, 1, 3)),
    "to .3,.: ": (RuntimeError, lambda x: x.expand(3)),
    "indexing a tensor of shape": (IndexError, lambda x: x[2]),
    "too many indices": (IndexError, lambda x: x[0, 0, 0, 0]),
    "boolean index": (IndexError, lambda x: x[np.array([True])]),
    "sizes differ elsewhere": (RuntimeError, lambda x: md.cat([x, x[0]])),
    "cat along 2": (RuntimeError, lambda x: md.cat([x, x[:1]], 2)),
    "no tensors": (ValueError, lambda x: md.cat([])),
    "without dimensions": (RuntimeError, lambda x: md.cat([x[0, 0, 0]])),
    "dim 7": (IndexError, lambda x: md.cat([x, x], 7)),
}


@pytest.mark.parametrize("words", WRONG)
def test_what_does_not_fit_is_an_error(words):
    error, function = WRONG[words]
    with pytest.raises(error, match=words):
        function(md.Tensor(X))
