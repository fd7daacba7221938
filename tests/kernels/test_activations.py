"""Activations: loop ≡ formula ≡ float64; slope ≡ difference quotient; NaN, infinities, layouts."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import functions
from minidist.kernels import pointwise as k
from minidist.kernels.dispatch import using
from minidist.kernels.each import each
from support.cases import LAYOUTS, SEEDS, laid_out, numbers

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
    "erf": (functions.erf, functions.erf_slope, ()),
}
OF_Y = {"sigmoid": (k.sigmoid, k.sigmoid_slope), "tanh": (functions.tanh, functions.tanh_slope)}
BOUNDS = {"float32": 2e-6, "float64": 1e-13}


def off(a, b):
    """The largest difference, in units of the larger of 1 and the number."""
    assert a.shape == b.shape
    return float((np.abs(a - b) / np.maximum(1, np.abs(b))).max(initial=0))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", PAIRS)
@given(shape=st.sampled_from([(), (0,), (1,), (5, 0), (3, 5), (2, 3, 43)]),
       layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=20)
def test_loop_is_formula_is_float64(name, dtype, shape, layout, seed):
    value, slope, options = PAIRS[name]
    g, x = (laid_out(numbers(shape, seed + i, dtype) * (1 + 2 * i), layout) for i in range(2))
    for kernel, args in ((value, (x,)), (slope, (g, x))):
        y = kernel(*args, *options)
        wide = kernel.formula(*(a.astype("float64") for a in args), *options)
        assert y.dtype == dtype and off(y, np.asarray(wide)) < BOUNDS[dtype]
        assert off(np.asarray(kernel.formula(*args, *options)), y) < BOUNDS[dtype]
        with using("naive"):
            naive = kernel(*args, *options)
        assert np.array_equal(naive, kernel.formula(*args, *options))


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", OF_Y)
def test_slopes_that_follow_from_the_result(name, dtype):
    value, slope = OF_Y[name]
    g, x = numbers((40,), 0, dtype), np.linspace(-5, 5, 40, dtype=dtype)
    y = value(x)
    assert off(y, value.formula(x.astype("float64"))) < BOUNDS[dtype]
    wide = [a.astype("float64") for a in (g, y)]
    assert off(slope(g, y), slope.formula(*wide)) < BOUNDS[dtype]
    wide = value.formula(x.astype("float64") + 1e-6) - value.formula(x.astype("float64") - 1e-6)
    np.testing.assert_allclose(slope(g, y), g * wide / 2e-6, atol=1e-6)


def test_float32_fails_the_bound_of_float64():
    x = numbers((1000,), 0) * 3
    rounded = set()
    for name, (value, _, options) in PAIRS.items():
        if off(value(x.astype("float32"), *options), value(x, *options)) > BOUNDS["float64"]:
            rounded.add(name)
    assert rounded >= PAIRS.keys() - {"relu"}


@pytest.mark.parametrize("name", PAIRS)
@given(n=st.integers(0, 20), seed=SEEDS)
@settings(max_examples=20)
def test_slopes(name, n, seed):
    value, slope, options = PAIRS[name]
    g, x, h = numbers((n, 2), seed + 1), numbers((n, 2), seed) * 3, 1e-6
    numeric = (value(x + h, *options) - value(x - h, *options)) / (2 * h)
    np.testing.assert_allclose(slope(g, x, *options), g * numeric, rtol=1e-7, atol=1e-8)


def test_a_wrong_slope_is_seen():
    g, x = numbers((20,), 1), numbers((20,), 0)
    assert off(k.silu_slope(g, x), k.mish_slope(g, x)) > 1e-3


@pytest.mark.parametrize("name", PAIRS)
def test_nothing_overflows_far_out(name):
    """Warnings are errors here: each value is finite, and exact, at both ends."""
    value, slope, options = PAIRS[name]
    for dtype in ("float32", "float64"):
        x = np.array([-1e4, -200, 200, 1e4], dtype)
        assert np.isfinite(value(x, *options)).all()
        assert np.isfinite(slope(np.ones_like(x), x, *options)).all()
    x = np.array([-1e4, 1e4], np.float32)
    np.testing.assert_array_equal(k.sigmoid(x), [0, 1])
    np.testing.assert_array_equal(k.log_sigmoid(x), [-1e4, 0])


@pytest.mark.filterwarnings("ignore:invalid value")
@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("name", PAIRS)
def test_nan_and_infinity_are_the_formula_s(name, dtype):
    """A NaN of x comes out of the value; its neighbours do not see it. So does one of g."""
    value, slope, options = PAIRS[name]
    x = np.array([1.0, np.nan, -1.0, np.inf, -np.inf, 0.5, -0.0, 0.0] * 5, dtype)
    g = np.array([1.0, -1.0, np.nan, np.inf, 2.0] * 8, dtype)
    clean = np.where(np.isfinite(x), x, 1).astype(dtype)
    alone, y = value(clean, *options), value(x, *options)
    assert np.isnan(y[np.isnan(x)]).all()
    assert np.array_equal(y[np.isfinite(x)], alone[np.isfinite(x)])
    np.testing.assert_allclose(y, value.formula(x, *options), rtol=1e-5)
    wanted = slope.formula(g, x, *options)
    np.testing.assert_allclose(slope(g, x, *options), wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", PAIRS)
def test_an_element_does_not_depend_on_the_others(name):
    value, slope, options = PAIRS[name]
    g, x = numbers((67,), 0, "float32"), numbers((67,), 1, "float32") * 3
    whole = value(x, *options), slope(g, x, *options)
    for part in (slice(0, 1), slice(3, 10), slice(1, 67), slice(60, 67)):
        assert value(x[part], *options).tobytes() == whole[0][part].tobytes()
        assert slope(g[part], x[part], *options).tobytes() == whole[1][part].tobytes()


def test_tiny_values_keep_their_digits():
    x = np.array([-40.0])
    np.testing.assert_allclose(k.softplus(x, 1.0, 20.0), np.exp(x), rtol=1e-12)
    np.testing.assert_allclose(k.log_sigmoid(-x), -np.exp(x), rtol=1e-12)
    g, t = np.ones(2, np.float32), np.array([1, 0], np.float32)
    x = np.array([30, -30], np.float32)  # sigmoid(30) is 1 in float32: less 1 it would be 0
    np.testing.assert_allclose(k.bce_of_logits(x, t), np.exp([-30.0, -30]), rtol=1e-6)
    slope = k.bce_of_logits_slope(g, x, t)
    np.testing.assert_allclose(slope, [-np.exp(-30.0), np.exp(-30.0)], rtol=1e-6)


@pytest.mark.parametrize("dtype", BOUNDS)
def test_cross_entropy_of_logits(dtype):
    g, x, t = (numbers((9, 7), seed, dtype) for seed in range(3))
    t = np.abs(t) / 2
    wide = [a.astype("float64") for a in (g, x, t)]
    assert off(k.bce_of_logits(x, t), k.bce_of_logits.formula(*wide[1:])) < BOUNDS[dtype]
    found = k.bce_of_logits_slope(g, x, t)
    assert off(found, k.bce_of_logits_slope.formula(*wide)) < BOUNDS[dtype]


def test_integers_are_refused():
    for name in ("numba", "naive"):
        with using(name), pytest.raises(NotImplementedError, match=r"silu of int64: convert with"):
            k.silu(np.array([1]))


def test_half_precision_runs_the_formula():
    x = np.array([1, 2], np.float16)
    assert np.array_equal(k.relu(x), x) and k.relu(x).dtype == np.float16


def test_arrays_of_different_shapes_are_refused():
    """The loop would read past the end of one of them."""
    with pytest.raises(ValueError, match=r"relu_slope: arrays of shapes \(3,\) and \(4,\)"):
        k.relu_slope(np.ones(3), np.ones(4))


# The loop that they share


@each
def weighted(a, x, by, shift):
    """by · a - x + shift."""
    return by * a - x + shift


@weighted.of
def weighted_of(a, x, by: float, shift: float):
    return by * a - x + shift


def test_arguments_keep_their_places():
    a, x = numbers((3, 4), 0), numbers((3, 4), 1)
    np.testing.assert_array_equal(weighted(a, x.T.copy().T, 2.0, 5), 2.0 * a - x + 5)
    assert a.flags.writeable and weighted(a, x, 1, 0).base is None
