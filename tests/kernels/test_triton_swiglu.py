"""SwiGLU: tile program ≡ loop ≡ the formula in float64, forward and backward; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import swiglu
from support.cases import LAYOUTS, SEEDS, laid_out
from support.peak import peak
from support.tritons import both, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SHAPES = [(2,), (0,), (3, 0), (0, 4), (5, 6), (2, 3, 130), (3, 2050), (70, 10), (1100, 2)]
# Beside numbers of at least 1. The slope's terms cancel near x = -1.3, and g is up to 13: 10 units
# of rounding were seen.
BOUND = {"float16": 2**-10, "float32": 2**-19, "float64": 2**-48}
BOUND_NUMPY = {**BOUND, "float16": 1e-2}  # the formula, each of whose operations rounds


def inputs(shape, dtype="float32", seed=0, layout="C"):
    """A cotangent and x."""
    rng = np.random.default_rng(seed)
    sizes = (*shape[:-1], shape[-1] // 2), shape
    return [laid_out(rng.standard_normal(s).astype(dtype) * 3, layout) for s in sizes]


def run(g, x):
    """(y, dx) of NumPy and of Triton."""
    with np.errstate(over="ignore"):  # in the interpreter: exp of far out, whose inverse is 0
        return zip(both(swiglu.forward, x), both(swiglu.backward, g, x))


def differences(found, g, x):
    """Errors of y and dx against the formula in float64, beside numbers of at least 1."""
    g, x = g.astype(np.float64), x.astype(np.float64)
    wanted = swiglu.forward.formula(x), swiglu.backward.formula(g, x)
    assert all(a.shape == w.shape for a, w in zip(found, wanted))
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.array([e.max(initial=0) for e in errors])


def check(g, x):
    for found, bound in zip(run(g, x), (BOUND_NUMPY, BOUND)):
        assert all(a.dtype == x.dtype for a in found)
        assert (differences(found, g, x) <= bound[x.dtype.name]).all()


@DTYPES
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=25)
def test_triton_is_the_loop_is_the_formula(dtype, shape, layout, seed):
    check(*inputs(shape, dtype, seed, layout))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_nan_stays_in_its_column(dtype):
    g, x = inputs((3, 40), dtype)
    clean = swiglu.forward(x), swiglu.backward(g, x)
    x[1, 7] = np.nan
    y, dx = swiglu.forward(x), swiglu.backward(g, x)
    assert np.isnan(y[1, 7]) and np.isnan(dx[1, [7, 27]]).all()
    assert np.isnan(y).sum() == 1 and np.isnan(dx).sum() == 2
    for found, wanted in zip((y, dx), clean):
        kept = ~np.isnan(found)
        assert np.array_equal(found[kept], wanted[kept])


@DTYPES
def test_far_out(dtype):
    """Gates whose exp(-a) overflows: silu is 0 there, and itself on the other side."""
    x = np.array([[-1e4, -900.0, 900.0, 1e4, 1, 1, 1, 1]], dtype)
    for y, dx in run(np.ones((1, 4), dtype), x):
        np.testing.assert_array_equal(y, [[0, 0, 900, 1e4]])
        np.testing.assert_array_equal(dx, [[0, 0, 1, 1, 0, 0, 900, 1e4]])


@DTYPES
@pytest.mark.parametrize("shape", [(3, 2050), (70, 10), (0, 4)])
def test_bytes_moved(dtype, shape):
    """Forward reads x and writes y; backward reads the cotangent and x and writes dx."""
    g, x = inputs(shape, dtype)
    with traffic() as count, np.errstate(over="ignore"):
        both(swiglu.forward, x)
    assert dict(count) == ({"load": x.nbytes, "store": g.nbytes} if x.size else {})
    with traffic() as count, np.errstate(over="ignore"):
        both(swiglu.backward, g, x)
    assert dict(count) == ({"load": x.nbytes + g.nbytes, "store": x.nbytes} if x.size else {})


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(dtype):
    g, x = inputs((256, 2048), dtype)
    assert peak(swiglu.forward, x) < 1 << 14
    assert peak(swiglu.backward, g, x) < 1 << 14


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    g, x = inputs((30, 40))
    for found in run(g, x):
        assert (differences(found, g, x) > 100 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", ["_swiglu_kernel", "_slopes_kernel"])
@pytest.mark.parametrize("axis", [0, 1])
def test_a_block_that_no_program_writes_is_seen(kernel, axis, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[tuple(n - (i == axis) for i, n in enumerate(grid))]

    whole = getattr(swiglu, kernel)
    monkeypatch.setattr(swiglu, kernel, LastProgramMissing())
    with pytest.raises(AssertionError):
        check(*inputs((3, 2500)))


def test_halves_exchanged_are_seen(monkeypatch):
    g, x = inputs((5, 6))
    kernel = swiglu.forward.versions["triton"]
    monkeypatch.setitem(
        swiglu.forward.versions, "triton", lambda x: kernel(np.roll(x, x.shape[-1] // 2, -1))
    )
    with pytest.raises(AssertionError):
        check(g, x)
