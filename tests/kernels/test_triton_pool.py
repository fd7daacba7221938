"""Pooling: tile programs ≡ loops ≡ formulas, places and infinities too; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import pool
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from minidist.kernels.windows import Windows
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import both, traffic

WINDOWS = [  # of a plane (5, 7), and of others
    Windows((2, 2), (2, 2)),
    Windows((3, 3), (2, 2), ((1, 1), (1, 1))),
    Windows((3, 2), (1, 3), ((0, 1), (1, 0)), (2, 1)),
    Windows((1, 3), (2, 1), ((0, 0), (1, 1)), (1, 3)),
    Windows((5, 7), (5, 7)),
    Windows((1, 1)),
]
DTYPES = ["float16", "float32", "float64"]
BOUND = {"float16": 2**-9, "float32": 2e-6, "float64": 1e-14}
COUNTS = st.sampled_from([(0, 2), (1, 1), (2, 3)])


def inputs(shape, seed, dtype="float32", layout="C"):
    """With equal numbers, infinities and NaN."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal(shape).round(1)
    for value in (np.nan, np.inf, -np.inf):
        x[rng.random(shape) < 0.03] = value
    return laid_out(x.astype(dtype), layout)


def equal(found, wanted, bound=0.0):
    """NaN and infinities in the same places; all else no further apart than `bound`."""
    found, wanted = (np.asarray(a, "float64") for a in (found, wanted))
    assert found.shape == wanted.shape
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    same = (found == wanted) | np.isnan(found)
    with np.errstate(invalid="ignore"):
        near = np.abs(found - wanted) <= bound * np.maximum(1, np.abs(wanted))
    assert (same | (near & np.isfinite(wanted))).all()


# The maximum


@pytest.mark.parametrize("dtype", DTYPES)
@given(win=st.sampled_from(WINDOWS), planes=COUNTS, ceil=st.booleans(), seed=SEEDS,
       layout=st.sampled_from(LAYOUTS))  # fmt: skip
@settings(max_examples=15)
def test_the_maximum_is_the_loop_is_the_formula(dtype, win, planes, ceil, seed, layout):
    x = inputs((*planes, 5, 7), seed, dtype, layout)
    check(x, win, win.grid((5, 7), ceil), seed)


def check(x, win, count, seed=0):
    wanted, places = pool.max_forward.formula(x, win, count)
    for y, which in both(pool.max_forward, x, win, count):
        assert y.dtype == x.dtype and which.dtype == places.dtype
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(which, places)
    g = inputs(wanted.shape, seed + 1, x.dtype, "F")
    with np.errstate(invalid="ignore"):  # inf - inf
        wide = pool.max_backward.formula(g.astype("float64"), places, x.shape, win)
        _, dx = both(pool.max_backward, g, places, x.shape, win)
    assert dx.dtype == g.dtype
    equal(dx, wide, BOUND[x.dtype.name])


@pytest.mark.parametrize("dtype", ["uint8", "int16", "int64"])
def test_the_maximum_of_integers(dtype):
    x = np.random.default_rng(0).integers(0, 200, (2, 2, 5, 7)).astype(dtype) - 100
    win = WINDOWS[1]
    for y, which in both(pool.max_forward, x.astype(dtype), win, win.grid((5, 7))):
        wanted, places = pool.max_forward.formula(x.astype(dtype), win, win.grid((5, 7)))
        np.testing.assert_array_equal(y, wanted)
        np.testing.assert_array_equal(which, places)


def test_bfloat16():
    x, win = inputs((1, 2, 5, 7), 0, BFLOAT16), WINDOWS[1]
    count = win.grid((5, 7))
    with np.errstate(invalid="ignore"):  # ml_dtypes compares NaN
        (_, places), (y, which) = both(pool.max_forward, x, win, count)
    equal(y, pool.max_forward.formula(x.astype("float32"), win, count)[0])
    np.testing.assert_array_equal(which, places)
    g = np.ones(y.shape, BFLOAT16)
    _, dx = both(pool.max_backward, g, which, x.shape, win)
    equal(dx, pool.max_backward.formula(g.astype("float32"), which, x.shape, win))


def test_a_window_of_more_places_than_a_byte_counts():
    x, win = inputs((1, 2, 3, 100), 3), Windows((3, 100), (3, 100))
    check(np.nan_to_num(x, posinf=0, neginf=0), win, (1, 1))


@pytest.mark.parametrize("win", WINDOWS[:3])
def test_bytes_of_the_maximum(win):
    """Forward loads a number for each window that holds it, backward its window's place; and g
    is loaded once."""
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 7)).astype("float32")
    count = win.grid((5, 7))
    seen = 6 * int(held((5, 7), win, count).sum())
    with using("triton"), traffic() as forward:
        y, which = pool.max_forward(x, win, count)
    assert dict(forward) == {"load": 4 * seen, "store": y.nbytes + which.nbytes}
    with using("triton"), traffic() as backward:
        dx = pool.max_backward(np.ones_like(y), which, x.shape, win)
    assert dict(backward) == {"load": seen + y.nbytes, "store": dx.nbytes}


def held(size, win, count):
    """How many windows hold each number of a plane."""
    ones = np.ones((1, 1, *count))
    each = (np.full((1, *count), k) for k in range(win.kernel[0] * win.kernel[1]))
    return sum(pool.max_backward.formula(ones, which, (1, 1, *size), win) for which in each)


# The mean


@st.composite
def matrices(draw, dtype):
    """Matrices of sliding or adaptive windows over (5, 7), or their transposes."""
    if draw(st.booleans()):
        by = np.dtype(dtype)
        found = [pool.adaptive(n, draw(st.integers(1, 9)), by) for n in (5, 7)]
    else:
        win = draw(st.sampled_from(WINDOWS))._replace(dilation=(1, 1))
        by = draw(st.booleans()), draw(st.booleans()), None, np.dtype(dtype)
        found = [pool.sliding(n, axis, win, *by) for axis, n in enumerate((5, 7))]
    return [m.T for m in found] if draw(st.booleans()) else found


@pytest.mark.parametrize("dtype", DTYPES)
@given(data=st.data(), planes=COUNTS, seed=SEEDS, layout=st.sampled_from(LAYOUTS))
@settings(max_examples=15)
def test_the_mean_is_the_loop_is_the_formula(dtype, data, planes, seed, layout):
    by = data.draw(matrices("float64" if dtype == "float64" else "float32"))
    x = inputs((*planes, by[0].shape[1], by[1].shape[1]), seed, dtype, layout)
    check_mean(x, *by)


def check_mean(x, *by):
    with np.errstate(invalid="ignore"):  # inf - inf
        wanted = pool.mean.formula(x.astype("float64"), *by)
        ours, tritons = both(pool.mean, x, *by)
    assert ours.dtype == tritons.dtype == by[0].dtype
    equal(tritons, wanted, BOUND[by[0].dtype.name])


@pytest.mark.parametrize("n, m", [(100, 1), (70, 2), (9, 9)])
def test_the_mean_of_wide_windows(n, m):
    x, by = np.random.default_rng(0).standard_normal((2, 2, 3, n)), np.dtype("float64")
    check_mean(x, pool.adaptive(3, 1, by), pool.adaptive(n, m, by))


def test_a_row_of_zeros_in_a_matrix():
    down = np.zeros((2, 5))
    down[1, 2:4] = 0.5
    check_mean(np.ones((1, 2, 5, 7)), down, pool.adaptive(7, 3, np.dtype("float64")))


def test_the_mean_of_integers_is_the_formula():
    x, ones = np.arange(24).reshape(1, 2, 3, 4), np.ones((1, 4), "int64")
    for y in both(pool.mean, x, np.ones((1, 3), "int64"), ones):
        assert y.dtype == x.dtype and y.ravel().tolist() == [66, 210]


def test_bytes_of_the_mean():
    """A number of x is loaded for each window that holds it. Beside it each matrix is loaded once
    for its bands, and then what one program needs of both."""
    x, win = np.ones((2, 3, 6, 8), "float32"), Windows((2, 2), (2, 2))
    by = [pool.sliding(n, a, win, False, True, None, x.dtype) for a, n in enumerate((6, 8))]
    with using("triton"), traffic() as count:
        y = pool.mean(x, *by)
    bands = 2 * 4 * (3 + 4)
    of_lines = (2 * 4 + 2 * 4) * 2 * 3 * 3  # start, stop and two weights of each
    of_columns = (2 * 4 + 2 * 2 * 4) * 4  # start, stop and two weights for each of two rows
    load = x.nbytes + by[0].nbytes + by[1].nbytes + of_lines + of_columns
    assert dict(count) == {"load": load, "store": y.nbytes + bands}


# The controls: what the assertions above must refuse


def test_infinities_spread_in_a_product():
    x, by = np.zeros((1, 1, 4, 4)), pool.adaptive(4, 2, np.dtype("float64"))
    x[0, 0, 0, 0] = np.inf
    with np.errstate(invalid="ignore"), pytest.raises(AssertionError):
        equal(pool._product(x, by, by), both(pool.mean, x, by, by)[1])


def test_float32_fails_the_bound_of_float64():
    x, by = np.random.default_rng(0).standard_normal((2, 2, 5, 7)), np.dtype("float32")
    by = [pool.adaptive(n, 2, by) for n in (5, 7)]
    with pytest.raises(AssertionError):
        equal(both(pool.mean, x.astype("float32"), *by)[1], pool.mean.formula(x, *by), 1e-14)


@pytest.mark.parametrize("name", ["_max_kernel", "_max_slope_kernel", "_mean_kernel"])
def test_a_block_that_no_program_writes_is_seen(name, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, grid[1])]

    whole = getattr(pool, name)
    monkeypatch.setattr(pool, name, LastProgramMissing())
    x, by = np.ones((1, 40, 5, 7), "float32"), np.dtype("float32")
    with pytest.raises(AssertionError):
        if name == "_mean_kernel":
            check_mean(x, *(pool.adaptive(n, n, by) for n in (5, 7)))
        else:
            check(x, Windows((1, 1)), (5, 7))
