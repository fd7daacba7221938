"""Activation kernels: value ≡ formula in float64, slope ≡ complex or central difference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import pointwise as k
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, tiny_tiles


def of(formula, *arguments):
    """The formula's value, in memory of its own."""
    out = np.full_like(arguments[0], np.nan)
    formula(*arguments, out=out)
    return out


PAIRS = {
    "relu": (k.relu, k.relu_slope, ()),
    "log_sigmoid": (k.log_sigmoid, k.log_sigmoid_slope, ()),
    "softplus": (k.softplus, k.softplus_slope, (1.5, 20.0)),
    "silu": (k.silu, k.silu_slope, ()),
    "leaky_relu": (k.leaky_relu, k.leaky_relu_slope, (0.2,)),
    "leaky_relu steep": (k.leaky_relu, k.leaky_relu_slope, (1.5,)),
    "leaky_relu falling": (k.leaky_relu, k.leaky_relu_slope, (-0.5,)),
    "elu": (k.elu, k.elu_slope, (0.7,)),
    "selu": (k.selu, k.selu_slope, ()),
    "mish": (k.mish, k.mish_slope, ()),
    "hard_tanh": (k.hard_tanh, k.hard_tanh_slope, (-0.7, 1.3)),
    "hard_swish": (k.hard_swish, k.hard_swish_slope, ()),
}


@pytest.mark.parametrize("name", PAIRS)
@given(n=st.integers(0, 20), tile=st.integers(1, 20), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=20)
def test_slopes(name, n, tile, layout, seed):
    value, slope, options = PAIRS[name]
    x = laid_out(numbers((n, 2), seed) * 3, layout)
    g = numbers((n, 2), seed + 1)
    with tiny_tiles(tile):
        y, dx = k.tiled(value, x, *options), k.tiled(slope, g, x, *options)
    np.testing.assert_array_equal(y, of(value, x, *options))
    h = 1e-6
    numeric = (of(value, x + h, *options) - of(value, x - h, *options)) / (2 * h)
    np.testing.assert_allclose(dx, g * numeric, rtol=1e-7, atol=1e-8)


def test_sigmoid_and_its_slope():
    x = np.linspace(-5, 5, 101)
    y = k.tiled(k.sigmoid, x)
    np.testing.assert_allclose(y, 0.5 + 0.5 * np.tanh(x / 2), rtol=1e-13)
    np.testing.assert_allclose(k.tiled(k.sigmoid_slope, x, y), x * y * (1 - y))


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_overflows_far_out(name):
    """Warnings are errors here: each formula is finite, and exact, at both ends."""
    value, slope, options = PAIRS[name]
    for dtype in ("float32", "float64"):
        x = np.array([-1e4, -200, 200, 1e4], dtype)
        assert np.isfinite(k.tiled(value, x, *options)).all()
        assert np.isfinite(k.tiled(slope, np.ones_like(x), x, *options)).all()
    x = np.array([-1e4, 1e4], np.float32)
    np.testing.assert_array_equal(k.tiled(k.sigmoid, x), [0, 1])
    np.testing.assert_array_equal(k.tiled(k.log_sigmoid, x), [-1e4, 0])


def test_tiny_values_keep_their_digits():
    x = np.array([-40.0])
    np.testing.assert_allclose(of(k.log1p_exp, x), np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(of(k.log_sigmoid, -x), -np.exp(x), rtol=1e-12)


def test_integers_are_refused():
    with pytest.raises(NotImplementedError, match=r"int64: convert with \.float\(\)"):
        k.tiled(k.silu, np.array([1]))
