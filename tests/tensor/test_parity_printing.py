"""Tensors print as PyTorch's do."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, arrays
from support.parity import torch

import minidist as md
from minidist import Tensor

RNG = np.random.default_rng(0)
ARRAYS = {
    "a number": np.array(1.5, "f"),
    "whole": np.array([1.0, -2.0], "f"),
    "ints": np.array([[1, -2], [30, 4]]),
    "bools": np.array([[True, False]]),
    "one bool": np.array(True),
    "small": np.array([1e-5, 1], "f"),
    "large": np.array([1e10, 1], "f"),
    "large and whole": np.array([1e8 + 10, 2], "f"),
    "far apart": np.array([0.001, 123.0], "f"),
    "not finite": np.array([np.nan, np.inf, -np.inf, 1.5], "f"),
    "nan alone": np.array(np.nan, "f"),
    "zeros": np.zeros((2, 2), "f"),
    "none": np.zeros(0, "f"),
    "none of a shape": np.zeros((2, 0), "f"),
    "no ints": np.zeros(0, int),
    "float64": np.array([1.0, 2.0]),
    "int32": np.arange(40).astype("int32"),
    "deep": RNG.standard_normal((2, 1, 2, 3)).astype("f"),
    "a long line": RNG.standard_normal(30).astype("f"),
    "long lines": np.full((3, 40), 100, "f"),
    "many": np.arange(2000),
    "many floats": RNG.standard_normal((4, 100, 20)).astype("f"),
    "many columns": RNG.standard_normal((20, 100)).astype("f"),
}


def theirs(array, **options):
    return str(torch.tensor(array, **options)).replace("torch.", "")


@pytest.mark.parametrize("name", ARRAYS)
def test_as_pytorchs(name):
    array = ARRAYS[name]
    assert str(Tensor(array)) == theirs(array)
    if array.dtype == "float32":
        told = str(Tensor(array, requires_grad=True))
        assert told == theirs(array, requires_grad=True)


@given(x=arrays(), scale=st.sampled_from([1e-6, 1, 1000]), seed=SEEDS)
@settings(max_examples=40)
def test_as_pytorchs_on_any_shape(x, scale, seed):
    x = (x * scale * 10.0 ** np.random.default_rng(seed).integers(-2, 3, x.shape)).astype("float32")
    assert str(Tensor(x)) == theirs(x)


def test_what_else_is_told():
    x = md.ones(2, requires_grad=True)
    assert repr(x * 2) == "tensor([2., 2.], grad_fn=<mul>)"
    assert f"{md.tensor(1.5)}" == "1.5" and f"{md.tensor([1.5])}" == "tensor([1.5000])"
