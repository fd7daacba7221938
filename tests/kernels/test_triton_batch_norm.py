"""Batch norm in Triton ≡ the loop ≡ the formula in float64; sums in order; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import batch_norm
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import poisoned, traffic

EPS = 0.01
NAMES = ["mean", "variance", "y", "dx", "dw", "db"]
# Rows; planes that share a tile; planes of several tiles; one number; odd sizes of each
SHAPES = [(40, 3, 1), (9, 5, 1), (5, 6, 3), (2, 2, 40), (2, 1, 100), (1, 1, 2), (2, 1, 1)]
BOUND = {"float16": 2**-9, "bfloat16": 2**-6, "float32": 2**-17, "float64": 2**-46}
KERNELS = ["_moments_kernel", "_merge_kernel", "_sums_kernel", "_forward_kernel", "_slope_kernel"]


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """Inside, small arrays fill several tiles of several blocks of channels."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TILE": 64, "ABREAST": 4, "PROGRAMS": 2, "MERGED": 4}.items():
            patch.setattr(batch_norm, name, value)
        yield


def inputs(shape, dtype="float32", seed=0, layout="C", affine=True):
    """A cotangent, x with a mean beside 0, weight and bias, and the statistics."""
    rng = np.random.default_rng(seed)
    g, x = (laid_out(a.astype(dtype), layout) for a in rng.standard_normal((2, *shape)))
    w, b = rng.standard_normal((2, shape[1])).astype(dtype)
    x = x + np.array(0.5, dtype)
    return g, x, *((w, b) if affine else (None, None)), *statistics(x)


def statistics(x):
    """Mean and 1/deviation, rounded to the dtype of x: every version takes the same."""
    with using("naive"), np.errstate(invalid="ignore"):
        mean, variance = batch_norm.moments(x.astype("float64"))
        return mean.astype(x.dtype), (1 / np.sqrt(variance + EPS)).astype(x.dtype)


def work(version, g, x, w, b, mean, rstd):
    """All values and cotangents, by NAMES."""
    with using(version), np.errstate(invalid="ignore"):
        y = batch_norm.forward(x, mean, rstd, w, b)
        return [*batch_norm.moments(x), y, *batch_norm.backward(g, x, mean, rstd, w, True)]


def triton(*arrays):
    with poisoned():
        return work("triton", *arrays)


def differences(found, *arrays):
    """From the formula in float64: beside numbers of at least 1, and of sums beside √count."""
    x = arrays[1]
    wanted = work("naive", *(a if a is None else a.astype("float64") for a in arrays))
    assert [a.shape for a in found] == [a.shape for a in wanted]
    root = max(1, x.size // x.shape[1]) ** 0.5
    sizes = [np.maximum(1, np.abs(a)) * (1 if i < 4 else root) for i, a in enumerate(wanted)]
    errors = [np.abs(a.astype("float64") - e) / s for a, e, s in zip(found, wanted, sizes)]
    return np.array([e.max(initial=0) for e in errors])


def check(*arrays):
    dtype = arrays[1].dtype
    found = {"triton": triton(*arrays)}
    if dtype in ("float32", "float64"):
        found["numba"] = work("numba", *arrays)
    for version, values in found.items():
        assert all(a.dtype == dtype for a in values), version
        assert (differences(values, *arrays) <= BOUND[dtype.name]).all(), version


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32", "float64"])
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS,
       affine=st.booleans())  # fmt: skip
@settings(max_examples=4)
def test_triton_is_the_loop_is_the_formula(dtype, shape, layout, seed, affine):
    check(*inputs(shape, dtype, seed, layout, affine))


@pytest.mark.parametrize("shape", [(40, 2, 1), (6, 2, 50)])
def test_a_channel_whose_mean_is_far_from_0_keeps_the_digits_of_its_variance(shape):
    """Also far from 0 by sample: merged variances are those about the mean of all samples."""
    _, x, *_ = inputs(shape)
    x[:, 0] += 1024
    x[::2, 1] += 64
    with using("triton"), poisoned():
        mean, variance = batch_norm.moments(x)
    wide = x.astype("float64")
    assert np.abs(mean / wide.mean((0, 2)) - 1).max() < 1e-6
    assert np.abs(variance / wide.var((0, 2)) - 1).max() < 1e-4  # of squares: 0.1


@pytest.mark.parametrize("length", [1, 20])
def test_nan_and_infinity_leave_other_channels_alone(length):
    g, x, w, b, *constants = inputs((4, 4, length))
    clean = triton(g, x, w, b, *constants)
    x[2, 1, 0], x[0, 2, 0] = np.nan, np.inf
    arrays = g, x, w, b, *statistics(x)
    found, wanted = triton(*arrays), work("naive", *arrays)
    for name, a, e, c in zip(NAMES, found, wanted, clean, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(e), name)
        np.testing.assert_array_equal(np.isinf(a), np.isinf(e), name)
        others = (slice(None), [0, 3]) if a.ndim == 3 else [0, 3]
        assert np.array_equal(a[others], c[others]), f"{name}: a channel depends on others"


@pytest.mark.parametrize("shape", [(0, 3, 1), (0, 3, 5), (2, 3, 0)])
def test_of_no_numbers(shape):
    """A rank without rows has sums of 0, and no moments."""
    g, x, w, b = (np.zeros(s, "float32") for s in (shape, shape, 3, 3))
    with using("triton"):
        y = batch_norm.forward(x, b, w, w, b)
        dx, *sums = batch_norm.backward(g, x, b, w, w, False)
        more = batch_norm.backward_input(g, x, b, w, w, w, b)
    assert y.shape == dx.shape == more.shape == shape and not any(a.any() for a in sums)


def test_cotangents_keep_the_shape_of_g():
    """Where mean and 1/deviation are constants, too: then dx is g times a scale."""
    g, x, w, b, *_ = inputs((3, 4, 8))
    for of_batch in (True, False):
        with using("triton"):
            deep = batch_norm.backward(g.reshape(3, 4, 2, 4), x, b, w, w, of_batch)
        flat = batch_norm.backward(g, x, b, w, w, of_batch)
        assert deep[0].shape == (3, 4, 2, 4)
        for a, e in zip(deep, flat, strict=True):
            np.testing.assert_allclose(a.ravel(), e.ravel(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("shape", [(40, 3, 1), (3, 1, 100)])
def test_bytes_moved(shape, dtype):
    """x once for moments; x and y; g and x for the sums; g, x and dx. Beside them vectors, once a
    tile or a part, and partial sums, which are written and read."""
    g, x, w, b, *_ = inputs(shape, dtype)
    blocks, tiles, _ = batch_norm.cut(shape, dtype == "float64")
    share = -(-tiles // (2 // blocks))
    parts = -(-tiles // share)
    sums = parts * shape[1] * max(4, x.itemsize)
    vector, size = w.nbytes, x.nbytes
    assert parts > 1 and tiles > parts
    steps = {
        "moments": ((x,), size + 3 * sums, 3 * sums + 2 * vector),
        "forward": ((x, b, w, w, b), size + 4 * tiles * vector, size),
        "backward_affine": (
            (g, x, b, w), 2 * size + 2 * parts * vector + 2 * sums, 2 * sums + 2 * vector
        ),
        "backward_input": ((g, x, b, w, w, w, b), 2 * size + 5 * tiles * vector, size),
    }  # fmt: skip
    for name, (args, load, store) in steps.items():
        with using("triton"), traffic() as count:
            getattr(batch_norm, name)(*args)
        assert dict(count) == {"load": load, "store": store}, name


def test_partial_sums_are_few_beside_what_is_read():
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {"TILE": 2048, "ABREAST": 64, "PROGRAMS": 528}.items():
            patch.setattr(batch_norm, name, value)
        for n, c, length in [(32, 64, 3136), (256, 512, 49), (65536, 256, 1), (1, 1, 1 << 24)]:
            blocks, tiles, constants = batch_norm.cut((n, c, length), False)
            share = -(-tiles // max(1, 528 // blocks))
            assert 3 * c * -(-tiles // share) < n * c * length / 20
            assert constants["SAMPLES"] * constants["CHANNELS"] * constants["POSITIONS"] == 2048


def test_no_atomics_so_two_runs_agree_to_the_last_bit():
    arrays = inputs((9, 5, 1))
    with traffic() as count:
        first = work("triton", *arrays)
    assert "atomic" not in count
    assert all(np.array_equal(a, e) for a, e in zip(first, work("triton", *arrays)))


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    arrays = inputs((2, 2, 40))
    for found in (work("numba", *arrays), triton(*arrays)):
        assert (differences(found, *arrays) > 10 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", KERNELS)
def test_what_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, *grid[1:])]

    whole = getattr(batch_norm, kernel)
    monkeypatch.setattr(batch_norm, kernel, LastProgramMissing())
    with pytest.raises(AssertionError):
        check(*inputs((9, 5, 1)))


@pytest.mark.parametrize("axis", ["SAMPLES", "CHANNELS", "POSITIONS"])
def test_a_tile_too_small_is_seen(axis, monkeypatch):
    def half(*args):
        blocks, tiles, constants = whole(*args)
        return blocks, tiles, constants | {axis: constants[axis] // 2}

    whole = batch_norm.cut
    monkeypatch.setattr(batch_norm, "cut", half)
    with pytest.raises(AssertionError):
        check(*inputs((9, 4, 2)))
