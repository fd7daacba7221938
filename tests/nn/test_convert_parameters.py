"""parameters_to_vector and vector_to_parameters: there and back, gradients, what does not fit."""

import numpy as np
import pytest

import minidist as md
from minidist import nn
from minidist.nn.utils import parameters_to_vector, vector_to_parameters


def model():
    return nn.Sequential(nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1))


def test_there_and_back():
    one, other = model(), model()
    vec = parameters_to_vector(one.parameters())
    arrays = [p.data for p in one.parameters()]
    assert vec.tolist() == np.concatenate([a.ravel() for a in arrays]).tolist()
    before = [p.data for p in other.parameters()]
    assert vector_to_parameters(vec, other.parameters()) is None
    for a, p, memory in zip(arrays, other.parameters(), before):
        np.testing.assert_array_equal(p.data, a)
        assert p.data is memory and p.is_leaf, "written into, as an optimiser's states need"


def test_gradients_reach_the_parameters():
    m = model()
    (parameters_to_vector(m.parameters()) * np.arange(11, dtype="f4")).sum().backward()
    assert m[0].weight.grad.tolist() == [[0, 1, 2], [3, 4, 5]] and m[2].bias.grad.tolist() == [10]


def test_views_and_other_dtypes_are_taken():
    x = md.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert parameters_to_vector([x.T, md.tensor(5.0).double()]).tolist() == [1, 3, 2, 4, 5]
    vector_to_parameters(md.arange(4).double(), [x.T])
    assert x.tolist() == [[0, 2], [1, 3]] and x.dtype == md.float32


@pytest.mark.parametrize(
    "vec, error, words",
    [
        ([1.0], TypeError, "want a Tensor, not list"),
        (md.ones(10), RuntimeError, r"shape \(10,\) for 4 parameters of 11 elements"),
        (md.ones(12), RuntimeError, r"want shape \(11,\)"),
        (md.ones(11, 1), RuntimeError, r"want shape \(11,\)"),
    ],
)
def test_what_does_not_fit_is_refused(vec, error, words):
    with pytest.raises(error, match=words):
        vector_to_parameters(vec, model().parameters())
