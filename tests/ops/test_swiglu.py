"""SwiGLU as an operation: its gradients, its value beside silu's, and inputs that do not fit."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, arrays, numbers, shapes

import minidist as md
from minidist.nn import functional as F
from minidist.testing import gradcheck


@given(data=st.data(), lead=shapes(max_dims=2), h=st.integers(0, 3))
@settings(max_examples=20)
def test_gradients(data, lead, h):
    gradcheck(F.swiglu, [data.draw(arrays((*lead, 2 * h)))])


@given(lead=shapes(max_dims=2), h=st.integers(0, 4), seed=SEEDS)
def test_is_silu_of_the_gate_times_the_rest(lead, h, seed):
    x = md.Tensor(numbers((*lead, 2 * h), seed))
    y = F.swiglu(x)
    np.testing.assert_allclose(
        y.data, (F.silu(x[..., :h]) * x[..., h:]).data, rtol=1e-14, atol=1e-300
    )
    assert y.shape == (*lead, h)


def test_the_gate_comes_first():
    x = md.tensor([[100.0, 2.0], [2.0, 100.0]])
    np.testing.assert_allclose(F.swiglu(x).data, [[200], [100 * 2 / (1 + np.exp(-2))]], rtol=1e-6)


@pytest.mark.parametrize("x", [md.ones(2, 3), md.tensor(1.0), md.ones(2, 4).long()])
def test_inputs_that_do_not_fit(x):
    with pytest.raises(RuntimeError, match=r"swiglu: .* want floats \(\.\.\., 2h\)"):
        F.swiglu(x)
