"""Resampling: tile programs ≡ loops ≡ formulas along one axis and two; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import resample
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import both, traffic

FORMS = pytest.mark.parametrize("form", ["nearest", "linear"])
BOUND = {"float16": 2**-8, "bfloat16": 2**-5, "float32": 2e-6, "float64": 1e-14}
SIZES = st.tuples(st.integers(1, 7), st.integers(1, 20))


def inputs(shape, dtype="float32", seed=0, layout="C"):
    return laid_out(np.random.default_rng(seed).standard_normal(shape).astype(dtype), layout)


def taps(form, sizes, dtype="float32", exact=False):
    each = getattr(resample, form)
    wide = np.dtype("float64" if dtype == "float64" else "float32")
    return [each(n, m, None, wide, exact) for n, m in sizes]


def difference(found, wanted):
    """Beside numbers of at least 1."""
    assert found.shape == wanted.shape
    found = found.astype("float64")
    return (np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0)


def check(function, x, by):
    """The formula's dtype, and its values in float64."""
    wanted, dtype = function.formula(x.astype("float64"), by), function.formula(x, by).dtype
    for y in both(function, x, by):
        assert y.dtype == dtype and difference(y, wanted) <= BOUND[dtype.name]


@FORMS
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@given(outer=st.integers(0, 3), sizes=st.lists(SIZES, min_size=1, max_size=2), exact=st.booleans(),
       seed=SEEDS, layout=st.sampled_from(LAYOUTS))  # fmt: skip
@settings(max_examples=8)
def test_triton_is_the_loop_is_the_formula(form, dtype, outer, sizes, exact, seed, layout):
    by = taps(form, sizes, dtype, exact)
    check(resample.forward, inputs((outer, *(n for n, _ in sizes)), dtype, seed, layout), by)
    check(resample.backward, inputs((outer, *(m for _, m in sizes)), dtype, seed, layout), by)


@FORMS
def test_blocks_of_many_programs(form):
    by = taps(form, [(30, 70), (40, 50)])
    check(resample.forward, inputs((3, 30, 40)), by)
    check(resample.backward, inputs((3, 70, 50)), by)


def test_bfloat16():
    by = taps("linear", [(5, 8)])
    check(resample.forward, inputs((2, 5), BFLOAT16), by)
    check(resample.backward, inputs((2, 8), BFLOAT16), by)


@FORMS
def test_nan_and_infinity_reach_what_they_reach_in_the_formula(form):
    by, x, g = taps(form, [(7, 12)]), inputs((3, 7)), inputs((3, 12))
    for row, value in enumerate((np.nan, np.inf)):
        x[row, 2] = g[row, 5] = value
    for function, array in ((resample.forward, x), (resample.backward, g)):
        with np.errstate(invalid="ignore"):  # inf · 0
            wanted = function.formula(array, by)
            found = both(function, array, by)[1]
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("function, home", [("forward", 9), ("backward", 23)])
def test_bytes_moved_by_lines(function, home):
    """Each place loads its two elements, or each element the places that read it: every place
    twice. Beside them are the indices and the weights, once a program."""
    by, x = taps("linear", [(9, 23)]), inputs((4, home))
    with using("triton"), traffic() as count:
        y = getattr(resample, function)(x, by)
    weights = 23 * 4 * (1 if function == "forward" else 2)
    indices = 23 * 8 * 2 if function == "forward" else 9 * 8 * 4
    assert dict(count) == {"load": 4 * 23 * 4 * 2 + indices + weights, "store": y.nbytes}


def test_bytes_moved_to_the_nearest():
    """Every place once, and where the run of each element starts and ends."""
    by, g = taps("nearest", [(9, 23)]), inputs((4, 23))
    with using("triton"), traffic() as count:
        dx = resample.backward(g, by)
    assert dict(count) == {"load": g.nbytes + 2 * 9 * 8, "store": dx.nbytes}


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    by, x = taps("linear", [(90, 230)]), inputs((4, 90))
    wanted = resample.forward.formula(x.astype("float64"), by)
    assert difference(both(resample.forward, x, by)[1], wanted) > 100 * BOUND["float64"]


def test_places_cut_short_are_seen(monkeypatch):
    starts = resample._starts
    monkeypatch.setattr(resample, "_starts", lambda g, index, n: starts(g, index, n) // 2)
    with pytest.raises(AssertionError):
        check(resample.backward, inputs((2, 23)), taps("linear", [(9, 23)]))


@pytest.mark.parametrize("name", ["_lines_kernel", "_sums_kernel"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_block_that_no_program_writes_is_seen(name, axis, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[tuple(n - (i == axis) for i, n in enumerate(grid))]

    whole = getattr(resample, name)
    monkeypatch.setattr(resample, name, LastProgramMissing())
    by = taps("linear", [(600, 1100)])
    with pytest.raises(AssertionError):
        check(resample.forward, inputs((3, 600)), by)
        check(resample.backward, inputs((3, 1100)), by)
