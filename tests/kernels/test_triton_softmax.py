"""Softmax and its logarithm in Triton ≡ in NumPy ≡ the formula in float64; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import softmax
from support.cases import LAYOUTS, SEEDS, laid_out
from support.peak import peak
from support.tritons import both, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
FORMS = pytest.mark.parametrize("log", [False, True])
SHAPES = [(1,), (0,), (0, 4), (3, 0), (5, 7), (2, 3, 4), (3, 130), (130, 3), (700, 5)]
BOUND = {"float16": 2**-10, "float32": 2**-20, "float64": 2**-48}
BOUND_NUMPY = {**BOUND, "float16": 0.2}  # where each pass rounds


def inputs(shape, dtype="float32", seed=0, layout="C"):
    """A cotangent, away from 0, and x."""
    rng = np.random.default_rng(seed)
    g, x = rng.uniform(0.5, 1, shape), rng.standard_normal(shape) * 3
    return [laid_out(a.astype(dtype), layout) for a in (g, x)]


def functions(log):
    if log:
        return softmax.log_forward, softmax.log_backward
    return softmax.forward, softmax.backward


def run(g, x, axis, log):
    """(y, dx) of NumPy and of Triton; both go back from the same y."""
    forward, backward = functions(log)
    y = forward.plain(x)(x, axis)
    return zip(both(forward, x, axis), both(backward, g, y, axis)), y


def differences(found, g, x, y, axis, log):
    """Errors of y and dx against the formula in float64, beside numbers of at least 1 and Σ g."""
    g, x, y = (a.astype(np.float64) for a in (g, x, y))
    forward, backward = (f.versions["naive"] for f in functions(log))
    wanted = forward(x, axis), backward(g, y, axis)
    assert all(a.shape == w.shape for a, w in zip(found, wanted))
    sizes = np.maximum(1, np.abs(wanted[0])), np.maximum(1, np.abs(g).sum(axis, keepdims=True))
    errors = [np.abs(a - w) / s for a, w, s in zip(found, wanted, sizes)]
    return np.array([e.max(initial=0) for e in errors])


def check(g, x, axis=-1, log=False):
    versions, y = run(g, x, axis, log)
    for found, bound in zip(versions, (BOUND_NUMPY, BOUND)):
        assert all(a.dtype == x.dtype for a in found)
        if x.size:
            assert (differences(found, g, x, y, axis, log) <= bound[x.dtype.name]).all()


@DTYPES
@FORMS
@given(shape=st.sampled_from(SHAPES), axis=st.integers(0, 2), layout=st.sampled_from(LAYOUTS),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=15)
def test_triton_is_numpy_is_the_formula(dtype, log, shape, axis, layout, seed):
    check(*inputs(shape, dtype, seed, layout), axis % len(shape), log)


@DTYPES
@FORMS
@given(n=st.integers(0, 3), v=st.sampled_from([3, 4096, 4500]), layout=st.sampled_from(LAYOUTS),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=6)
def test_rows_that_are_read_a_block_at_a_time(dtype, log, n, v, layout, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(softmax, "WIDEST", 2)
        check(*inputs((n, v), dtype, seed, layout), 1, log)


@pytest.mark.parametrize("widest", [softmax.WIDEST, 2])
@pytest.mark.parametrize("kind", ["a number", "late maxima", "masked", "far apart"])
def test_hard_rows(widest, kind, monkeypatch):
    """A 0-d array; sums that are rescaled in each block; -inf; rows far apart."""
    monkeypatch.setattr(softmax, "WIDEST", widest)
    g, x = inputs((3, 13000))
    if kind == "a number":
        g, x = g[0, 0], x[0, 0]
    elif kind == "late maxima":
        x[:] = np.arange(x.shape[1]) / 100
    elif kind == "masked":
        x[:, 100:] = -np.inf
    else:
        x += np.array([[-1e4], [0], [1e4]], np.float32)
    for log in (False, True):
        forward = functions(log)[0]
        wanted = forward.versions["naive"](x.astype(np.float64), -1)
        np.testing.assert_allclose(both(forward, x, -1)[1], wanted, rtol=3e-5, atol=3e-5)


@pytest.mark.parametrize("widest", [softmax.WIDEST, 2])
def test_rows_that_are_all_masked_are_nan(widest, monkeypatch):
    monkeypatch.setattr(softmax, "WIDEST", widest)
    x = np.full((2, 9), -np.inf, np.float32)
    x[1] = 0
    with np.errstate(invalid="ignore"):
        y = both(softmax.forward, x, 1)[1]
    assert np.isnan(y[0]).all() and np.allclose(y[1], 1 / 9)


@DTYPES
@FORMS
@pytest.mark.parametrize("shape", [(3, 4500), (7, 5), (0, 4)])
def test_bytes_moved(dtype, log, shape, monkeypatch):
    """In registers each array once; wide, forward and backward read twice (log's y but once)."""
    g, x = inputs(shape, dtype)
    for widest, reads, reads_back in ((softmax.WIDEST, 1, 2), (2, 2, 3 if log else 4)):
        monkeypatch.setattr(softmax, "WIDEST", widest)
        for function, arrays, times in zip(functions(log), ((x,), (g, x)), (reads, reads_back)):
            with traffic() as count, np.errstate(over="ignore"):
                both(function, *arrays, -1)
            expected = {"load": times * x.nbytes, "store": x.nbytes} if x.size else {}
            assert dict(count) == expected


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(dtype):
    """Softmax in its own result; its logarithm and backward in a tile beside it at most."""
    g, x = inputs((1024, 2048), dtype)
    tile = (1 << 18) * x.itemsize
    for log in (False, True):
        for function, arrays in zip(functions(log), ((x,), (g, x))):
            assert peak(function, *arrays, -1) < 1.2 * tile


# The controls: what the assertions above must refuse


@FORMS
def test_float32_fails_the_bound_of_float64(log):
    g, x = inputs((30, 40))
    versions, y = run(g, x, -1, log)
    for found in versions:
        assert (differences(found, g, x, y, -1, log) > 10 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", ["_rows_kernel", "_rows_slope_kernel", "_wide_kernel",
                                    "_wide_slope_kernel"])  # fmt: skip
def test_a_block_that_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1,)]

    whole = getattr(softmax, kernel)
    monkeypatch.setattr(softmax, kernel, LastProgramMissing())
    monkeypatch.setattr(softmax, "WIDEST", 2 if "wide" in kernel else softmax.WIDEST)
    with pytest.raises(AssertionError):
        check(*inputs((9, 900)))


def test_a_block_too_narrow_is_seen(monkeypatch):
    def half(rows, v, double):
        wide, programs, constants = whole(rows, v, double)
        return wide, programs, constants | {"COLUMNS": constants["COLUMNS"] // 2}

    whole = softmax.cut
    monkeypatch.setattr(softmax, "cut", half)
    with pytest.raises(AssertionError):
        check(*inputs((5, 100)))
