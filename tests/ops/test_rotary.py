"""Rotary embedding: equal to the formula, an isometry, and a function of distances alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import rotary as kernel
from support.cases import SEEDS, arrays, numbers

import minidist as md
from minidist.nn import functional as F
from minidist.testing import gradcheck

LAYOUT = pytest.mark.parametrize("interleaved", [True, False])


@LAYOUT
@given(data=st.data(), lead=st.sampled_from([(), (2,), (2, 3)]), s=st.integers(0, 4),
       half=st.integers(1, 3))  # fmt: skip
@settings(max_examples=12)
def test_gradients(interleaved, data, lead, s, half):
    x = data.draw(arrays((*lead, s, 2 * half)))
    gradcheck(lambda x: F.rotary_embedding(x, base=100.0, interleaved=interleaved), [x])


@LAYOUT
@pytest.mark.parametrize("dtype, bound", [("float64", 1e-14), ("float32", 2e-6)])
@given(s=st.integers(1, 9), half=st.integers(1, 4), seed=SEEDS)
@settings(max_examples=15)
def test_is_the_formula(interleaved, dtype, bound, s, half, seed):
    x = numbers((2, s, 2 * half), seed, dtype)
    y = F.rotary_embedding(md.Tensor(x), interleaved=interleaved).data
    turn = np.exp(1j * kernel.angles(np.arange(s), 2 * half, 10000.0))
    np.testing.assert_allclose(y, kernel.rotate.formula(x, turn, interleaved), atol=bound)
    assert y.dtype == dtype


def test_the_layouts_differ_by_a_permutation():
    x = numbers((3, 8), 0)
    pairs = np.arange(8).reshape(4, 2).T.ravel()  # 0 2 4 6 1 3 5 7
    a = F.rotary_embedding(md.Tensor(x)).data[:, pairs]
    b = F.rotary_embedding(md.Tensor(x[:, pairs].copy()), interleaved=False).data
    np.testing.assert_allclose(a, b, rtol=1e-14)
    assert np.abs(a - F.rotary_embedding(md.Tensor(x), interleaved=False).data).max() > 0.1


@LAYOUT
@given(a=st.integers(0, 50), b=st.integers(0, 50), shift=st.integers(0, 1000), seed=SEEDS)
@settings(max_examples=20)
def test_products_depend_on_distances_alone(interleaved, a, b, shift, seed):
    q, k = (md.Tensor(numbers((1, 6), seed + i)) for i in (0, 1))
    turned = lambda x, at: F.rotary_embedding(x, np.array([at]), interleaved=interleaved).data
    near = turned(q, a) @ turned(k, b).T
    np.testing.assert_allclose(near, turned(q, a + shift) @ turned(k, b + shift).T, atol=1e-11)
    np.testing.assert_allclose(np.linalg.norm(turned(q, a)), np.linalg.norm(q.data), rtol=1e-13)


def test_positions_are_global():
    """Half of a sequence, told where it stands, is what the whole would give; untold it is not."""
    x = numbers((2, 6, 4), 0)
    whole = F.rotary_embedding(md.Tensor(x)).data
    half = F.rotary_embedding(md.Tensor(x[:, 3:]), md.arange(3, 6)).data
    np.testing.assert_array_equal(whole[:, 3:], half)
    assert np.abs(F.rotary_embedding(md.Tensor(x[:, 3:])).data - half).max() > 0.1


def test_inputs_that_do_not_fit():
    with pytest.raises(RuntimeError, match=r"input \(2, 3\)"):
        F.rotary_embedding(md.ones(2, 3))
    with pytest.raises(RuntimeError, match="int64"):
        F.rotary_embedding(md.ones(2, 4).long())
    with pytest.raises(RuntimeError, match=r"positions \(3,\) for input \(2, 4\)"):
        F.rotary_embedding(md.ones(2, 4), md.arange(3))
