"""GELU and erf: loop ≡ formula ≡ float64; how work is cut into tiles."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import gelu
from minidist.kernels.functions import erf
from support.cases import LAYOUTS, SEEDS, laid_out, numbers

BOUNDS = {"float32": 3e-6, "float64": 1e-14}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
FORMS = pytest.mark.parametrize("form", ["none", "tanh"])


def off(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, in units of the larger of 1 and b's largest."""
    assert a.shape == b.shape
    return float(np.abs(a - b).max(initial=0) / max(1.0, np.abs(b).max(initial=0)))


# erf


def test_erf_against_the_standard_library():
    x = np.concatenate([np.linspace(-7, 7, 20_001), [0.46875, 4.0, 6.0, 1e-300, 5e-324, 1e300]])
    expected = np.array([math.erf(v) for v in x])
    ulps = lambda y: (np.abs(y - expected) / np.spacing(np.abs(expected))).max()
    for of in (erf, erf.formula):
        assert ulps(of(x)) <= 4
        assert ulps(of(x * (1 + 2e-15))) > 4, "the bound sees a relative error of 2e-15"


def test_erf_of_less_than_float64():
    x = np.concatenate([np.linspace(-7, 7, 20_001), [1e-38, 1e30, 3.9, 4.1]]).astype(np.float32)
    expected = np.array([math.erf(v) for v in x.tolist()])
    relative = np.abs(erf(x) - expected)[expected != 0] / np.abs(expected[expected != 0])
    assert 1e-8 < relative.max() < 4e-7
    half = x[np.abs(x) < 7].astype(np.float16)
    np.testing.assert_array_equal(erf(half), erf(half.astype(np.float64)).astype(np.float16))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_erf_at_the_ends(dtype):
    x = np.array([0.0, -0.0, np.inf, -np.inf, np.nan], dtype)
    for of in (erf, erf.formula):
        np.testing.assert_array_equal(of(x), [0, 0, 1, -1, np.nan])
        np.testing.assert_array_equal(np.signbit(of(x[:2])), [False, True])
        for shape in ((), (0,), (1, 1)):
            y = of(np.ones(shape, np.float32))
            assert (y.shape, y.dtype) == (shape, np.float32)


# GELU


def slope(x: np.ndarray, form: str) -> np.ndarray:
    """d gelu/dx by the formula."""
    if form == "none":
        return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    t = np.tanh(gelu.C * (x + gelu.K * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * gelu.C * (1 + 3 * gelu.K * x * x)


@FORMS
@DTYPES
@given(n=st.integers(0, 40), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=30)
def test_gelu_is_its_formula_is_float64(form, dtype, n, layout, seed):
    x = laid_out(numbers((n, 3), seed, dtype) * 3, layout)
    g = laid_out(numbers((n, 3), seed + 1, dtype), layout)
    wide = x.astype("float64")
    y, saved = gelu.forward(x, form)
    dx = gelu.backward(g, saved)
    assert y.dtype == dx.dtype == dtype
    assert off(y, gelu.forward.formula(x, form)[0]) < BOUNDS[dtype]
    assert off(saved, gelu.forward.formula(x, form)[1]) < BOUNDS[dtype]
    assert off(y, gelu.forward.formula(wide, form)[0]) < BOUNDS[dtype]
    assert off(dx, g.astype("float64") * slope(wide, form)) < BOUNDS[dtype]


@FORMS
def test_float32_does_not_pass_the_bound_of_float64(form):
    x = numbers((100,), 0)
    y, _ = gelu.forward(x.astype("float32"), form)
    assert off(y, gelu.forward.formula(x, form)[0]) > BOUNDS["float64"]


@FORMS
def test_an_element_of_gelu_does_not_depend_on_the_others(form):
    x = numbers((1001,), 0, "float32")
    whole = gelu.forward(x, form)
    for part in (slice(0, 1), slice(7, 20), slice(1, 1001), slice(990, 1001)):
        for found, wanted in zip(gelu.forward(x[part], form), whole):
            assert found.tobytes() == wanted[part].tobytes()


@FORMS
@DTYPES
def test_a_nan_of_gelu_stays_where_it_is(form, dtype):
    x = numbers((40,), 0, dtype)
    x[7] = np.nan
    rest = np.arange(40) != 7
    for found, wanted in zip(gelu.forward(x, form), gelu.forward(x[rest], form)):
        assert np.isnan(found[7]) and np.array_equal(found[rest], wanted)


@FORMS
def test_gelu_keeps_0_dimensions_and_has_no_nan_far_out(form):
    x = np.array(1.0)
    y, saved = gelu.forward(x, form)
    assert y.shape == saved.shape == gelu.backward(x, saved).shape == ()
    x = np.array([1e4, -1e4, 1e15, -1e15, 0.0, 1e30, -1e30], np.float32)
    y, saved = gelu.forward(x, form)  # x³ overflows float32
    dx = gelu.backward(np.ones_like(x), saved)
    np.testing.assert_array_equal(np.abs(y), [x[0], 0, x[2], 0, 0, x[5], 0])
    np.testing.assert_array_equal(dx, [1, 0, 1, 0, 0.5, 1, 0])


def test_small_values_of_exact_gelu_keep_their_digits():
    """1 + erf is 0 in float32 below -5.5."""
    x = np.linspace(-12, -3, 100, dtype=np.float32)
    wanted = [0.5 * v * math.erfc(-v / math.sqrt(2)) for v in x.tolist()]
    np.testing.assert_allclose(gelu.forward(x)[0], wanted, rtol=1e-6)
    by_erf = x * (0.5 + 0.5 * erf(x / np.float32(math.sqrt(2))))
    assert np.abs(by_erf / wanted - 1).max() > 0.9
