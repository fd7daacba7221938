"""Group norm in Triton ≡ the loop ≡ the formula in float64; sums in order; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import group_norm, norm_triton
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import poisoned, traffic

EPS = 0.01
NAMES = ["y", "stats", "dx", "dw", "db"]
# (n, c, l) and groups: planes that share a tile, of several tiles; rows; one number a group
SHAPES = [((2, 6, 3), 2), ((2, 2, 40), 1), ((2, 40, 1), 1), ((1, 1, 1), 1), ((2, 3, 5), 3)]
BOUND = {"float16": 2**-9, "bfloat16": 2**-6, "float32": 2**-17, "float64": 2**-46}


@pytest.fixture(autouse=True, scope="module")
def tiny():
    """Inside, small groups fill several tiles."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(group_norm, "TILE", 32)
        yield


def inputs(shape, dtype="float32", seed=0, layout="C", affine=True):
    """A cotangent, x with a mean beside 0, weight and bias."""
    rng = np.random.default_rng(seed)
    g, x = (laid_out(a.astype(dtype), layout) for a in rng.standard_normal((2, *shape)))
    w, b = rng.standard_normal((2, shape[1])).astype(dtype)
    return g, x + np.array(0.5, dtype), *((w, b) if affine else (None, None))


def work(version, groups, g, x, w, b):
    """Values, statistics and cotangents, by NAMES."""
    with using(version), np.errstate(invalid="ignore"):
        y, stats = group_norm.forward(x, w, b, groups, EPS)
        return [y, stats, *group_norm.backward(g, x, w, groups, stats)]


def triton(groups, *arrays):
    with poisoned():
        return work("triton", groups, *arrays)


def differences(found, groups, *arrays):
    """From the formula in float64: beside numbers of at least 1, and of sums beside √count."""
    x = arrays[1]
    wide = [a if a is None else a.astype("float64") for a in arrays]
    wanted = work("naive", groups, *wide)
    assert [a.shape for a in found] == [a.shape for a in wanted]
    root = max(1, x.size // x.shape[1]) ** 0.5
    sizes = [np.maximum(1, np.abs(a)) * (1 if i < 3 else root) for i, a in enumerate(wanted)]
    errors = [np.abs(a.astype("float64") - e) / s for a, e, s in zip(found, wanted, sizes)]
    return np.array([e.max(initial=0) for e in errors])


def check(groups, *arrays):
    dtype = arrays[1].dtype
    found = {"triton": triton(groups, *arrays)}
    if dtype in ("float32", "float64"):
        found["numba"] = work("numba", groups, *arrays)
    for version, (y, stats, *slopes) in found.items():
        assert all(a.dtype == dtype for a in (y, *slopes)), version
        assert stats.dtype == ("float64" if dtype == "float64" else "float32")
        wrong = differences([y, stats, *slopes], groups, *arrays)
        assert (wrong <= BOUND[dtype.name]).all(), version


@pytest.mark.parametrize("dtype", ["float16", BFLOAT16, "float32", "float64"])
@given(case=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS,
       affine=st.booleans())  # fmt: skip
@settings(max_examples=3)
def test_triton_is_the_loop_is_the_formula(dtype, case, layout, seed, affine):
    check(case[1], *inputs(case[0], dtype, seed, layout, affine))


@pytest.mark.parametrize("case", SHAPES)
def test_every_shape(case):
    check(case[1], *inputs(case[0]))


def test_a_mean_far_from_0_leaves_the_variance_its_digits():
    _, x, *_ = inputs((2, 4, 20))
    x += np.float32([[[1024]], [[-1024]]])
    with using("triton"), poisoned():
        y, _ = group_norm.forward(x, None, None, 2, EPS)
    with using("naive"):
        wanted, _ = group_norm.forward(x.astype("float64"), None, None, 2, EPS)
    assert np.abs(y - wanted).max() < 5e-4  # a mean of float32 numbers is off by 6e-5


def test_nan_and_infinity_leave_other_groups_alone():
    """Sums over samples are of a channel: NaN in it spreads to the channels of its group."""
    g, x, w, b = inputs((3, 6, 7))
    clean = triton(3, g, x, w, b)
    x[1, 2, 5], x[0, 1, 3] = np.nan, np.inf
    found, wanted = triton(3, g, x, w, b), work("naive", 3, g, x, w, b)
    for name, a, e in zip(NAMES, found, wanted, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(e), name)
        np.testing.assert_array_equal(np.isinf(a), np.isinf(e), name)
    for k in (0, 2):
        spoilt = np.isnan(found[k].reshape(3, 3, -1)).any(2)
        assert spoilt.tolist() == [[True, False, False], [False, True, False], [False] * 3]
        alone = found[k].reshape(3, 3, -1)[~spoilt]
        assert np.array_equal(alone, clean[k].reshape(3, 3, -1)[~spoilt])


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0)])
def test_of_no_numbers(shape):
    g, x, w, b = (np.zeros(s, "float32") for s in (shape, shape, 4, 4))
    y, stats, dx, *sums = work("triton", 2, g, x, w, b)
    assert y.shape == dx.shape == shape and stats.shape == (2, 2 * shape[0])
    assert not any(a.any() for a in sums)


def test_cotangents_keep_the_shape_of_g():
    g, x, w, b = inputs((2, 4, 6))
    flat, deep = triton(2, g, x, w, b), triton(2, g.reshape(2, 4, 2, 3), x, w, b)
    assert deep[2].shape == (2, 4, 2, 3)
    assert all(np.array_equal(a.ravel(), e.ravel()) for a, e in zip(flat, deep, strict=True))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_bytes_moved(dtype):
    """x twice and y; g and x twice and dx. Beside them weights, two numbers a group, and sums of
    planes, which are written and read. Weights are loaded once a tile."""
    g, x, w, b = inputs((2, 4, 40), dtype)
    with using("triton"), traffic() as count:
        _, stats = group_norm.forward(x, w, b, 2, EPS)
    across = -(-40 // group_norm.cut(2, 40, dtype == "float64")["POSITIONS"])
    weights = 2 * across * w.nbytes  # once a sample
    assert dict(count) == {"load": 2 * x.nbytes + 2 * weights, "store": x.nbytes + stats.nbytes}
    with using("triton"), traffic() as count:
        group_norm.backward(g, x, w, 2, stats)
    sums = 2 * 2 * 4 * max(4, x.itemsize)
    assert dict(count) == {
        "load": 4 * x.nbytes + stats.nbytes + weights + 2 * w.nbytes + sums,
        "store": x.nbytes + sums + 2 * w.nbytes,
    }


def test_no_atomics_so_two_runs_agree_to_the_last_bit():
    arrays = inputs((3, 4, 9))
    with traffic() as count:
        first = work("triton", 2, *arrays)
    assert "atomic" not in count
    assert all(np.array_equal(a, e) for a, e in zip(first, work("triton", 2, *arrays)))


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    arrays = inputs((2, 4, 40))
    for found in (work("numba", 2, *arrays), triton(2, *arrays)):
        assert (differences(found, 2, *arrays) > 10 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel", "_add_up_kernel"])
def test_what_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, *grid[1:])]

    module = norm_triton if kernel == "_add_up_kernel" else group_norm
    whole = getattr(module, kernel)
    monkeypatch.setattr(module, kernel, LastProgramMissing())
    with pytest.raises(AssertionError):
        check(2, *inputs((2, 4, 9)))


def test_weights_of_another_group_are_seen():
    g, x, w, b = inputs((2, 4, 9))
    found = triton(2, g, x, np.roll(w, 2), b)
    assert (differences(found, 2, g, x, w, b)[[0, 2]] > 0.1).all()
