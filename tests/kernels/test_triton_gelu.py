"""GELU: tile program ≡ loop ≡ the formula in float64: values, slopes, bytes moved, memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import gelu
from support.cases import LAYOUTS, SEEDS, laid_out
from support.peak import peak
from support.tritons import both, traffic

FORMS = pytest.mark.parametrize("form", ["none", "tanh"])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SHAPES = [(), (0,), (1,), (3, 341), (1024,), (5, 410)]
# Rounding of the results, and of the factors of slopes up to x · 8x² · (1 - tanh u) at x = 6.
BOUND = {"float16": 2**-10, "float32": 4e-6, "float64": 3e-14}
BOUND_NUMPY = {**BOUND, "float16": 1e-2}  # the formula, each of whose operations rounds


def inputs(shape, dtype="float32", seed=0):
    return np.asarray(np.random.default_rng(seed).standard_normal(shape) * 3, dtype)


def differences(found, x, form):
    """Of values and slopes from the formula's in float64, beside numbers of at least 1."""
    wanted = gelu.forward.versions["naive"](x.astype(np.float64), form)
    assert all(a.dtype == x.dtype and a.shape == x.shape for a in found)
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.array([e.max(initial=0) for e in errors])  # max() of Python would pass over NaN


def run(x, form):
    with np.errstate(over="ignore"):  # in the interpreter: exp of far out, whose inverse is 0
        return both(gelu.forward, x, form)


def check(x, form):
    ours, tritons = run(x, form)
    name = x.dtype.name
    assert (differences(tritons, x, form) <= BOUND[name]).all()
    assert (differences(ours, x, form) <= BOUND_NUMPY[name]).all()


@FORMS
@DTYPES
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=12)
def test_triton_is_the_loop_is_the_formula(form, dtype, shape, layout, seed):
    check(laid_out(inputs(shape, dtype, seed), layout), form)


@FORMS
@DTYPES
@pytest.mark.parametrize("n", [0, 1, 1024, 1500])
def test_bytes_moved(form, dtype, n):
    """x is read once, y and the slope are written once."""
    x = inputs(n, dtype)
    with traffic() as count:
        run(x, form)
    assert dict(count) == ({"load": x.nbytes, "store": 2 * x.nbytes} if n else {})


@FORMS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(form, dtype):
    x = inputs(1 << 18, dtype)
    assert peak(gelu.forward, x, form) < 1 << 14


# The controls: what the assertions above must refuse


@FORMS
def test_float32_fails_the_bound_of_float64(form):
    x = inputs(1000)
    assert (differences(run(x, form)[1], x, form) > 100 * BOUND["float64"]).all()


def test_the_other_form_is_seen():
    """Φ and its approximation by tanh differ by 5e-4."""
    x = inputs(1000)
    assert (differences(run(x, "tanh")[1], x, "none") > 10 * BOUND["float32"]).all()


def test_an_element_that_no_program_writes_is_seen(monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return kernel[(grid[0] - 1,)]

    kernel = gelu._gelu_kernel
    monkeypatch.setattr(gelu, "_gelu_kernel", LastProgramMissing())
    with pytest.raises(AssertionError):
        check(inputs(1025), "none")
