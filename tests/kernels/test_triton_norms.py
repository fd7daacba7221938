"""Layer and RMS norm in Triton ≡ in NumPy ≡ the formula in float64; sums in order; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import layer_norm, norm_triton, rms_norm
from support.cases import LAYOUTS, SEEDS, laid_out
from support.peak import peak
from support.tritons import both, poisoned, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
NORMS = pytest.mark.parametrize("norm", [layer_norm, rms_norm])
SHAPES = [(0, 4), (3, 0), (1, 1), (5, 7), (3, 130), (70, 3), (2, 1100)]
BOUND = {"float16": 2**-9, "float32": 2**-18, "float64": 2**-46}
BOUND_NUMPY = {**BOUND, "float16": 5e-2}  # where each pass rounds
EPS = 0.01
VERSIONS = ("numba", "triton")


def inputs(shape, dtype="float32", seed=0, layout="C"):
    """A cotangent, x with a mean beside 0, weight and bias."""
    rng = np.random.default_rng(seed)
    g, x = (laid_out(a.astype(dtype), layout) for a in rng.standard_normal((2, *shape)))
    w, b = rng.standard_normal((2, shape[1])).astype(dtype)
    return g, x + np.array(0.5, dtype), w, b


def work(norm, version, g, x, w, b):
    """(y, dx, dw and, of layer norm, db) of one version; "numba" is what runs on the CPU."""
    forward, backward = (
        f.plain(x) if version == "numba" else f.versions[version]
        for f in (norm.forward, norm.backward)
    )
    if norm is layer_norm:
        y, saved = forward(x, w, b, EPS)
    else:
        y, saved = forward(x, w, EPS)
    return y, *backward(g, x, w, saved)


def triton(norm, *arrays):
    with poisoned():
        return work(norm, "triton", *arrays)


def differences(norm, found, g, x, w, b):
    """From the formula in float64: beside numbers of at least 1, and of sums beside √n."""
    wanted = work(norm, "naive", *(a if a is None else a.astype(np.float64) for a in (g, x, w, b)))
    assert [a.shape for a in found] == [a.shape for a in wanted]
    root = max(1, len(x)) ** 0.5
    sizes = [np.maximum(1, np.abs(a)) * (1 if i < 2 else root) for i, a in enumerate(wanted)]
    errors = [np.abs(a - e) / s for a, e, s in zip(found, wanted, sizes)]
    return np.array([e.max(initial=0) for e in errors])


def check(norm, *arrays):
    g, x = arrays[:2]
    for version, bound in zip(VERSIONS, (BOUND_NUMPY, BOUND)):
        found = triton(norm, *arrays) if version == "triton" else work(norm, version, *arrays)
        assert all(a.dtype == x.dtype for a in found)
        if x.size:
            assert (differences(norm, found, *arrays) <= bound[x.dtype.name]).all()
        else:
            assert [a.shape for a in found[:3]] == [x.shape, g.shape, x.shape[1:]]
            assert not any(a.any() for a in found)


@NORMS
@DTYPES
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS,
       affine=st.booleans())  # fmt: skip
@settings(max_examples=12)
def test_triton_is_numpy_is_the_formula(norm, dtype, shape, layout, seed, affine):
    """With weight and bias or without; several rows a program, several times over."""
    g, x, w, b = inputs(shape, dtype, seed, layout)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm_triton, "PROGRAMS", 3)
        patch.setattr(norm_triton, "BLOCK", 64)
        check(norm, g, x, *((w, b) if affine else (None, None)))


@NORMS
@DTYPES
@given(n=st.integers(0, 5), h=st.sampled_from([33, 64, 150]), seed=SEEDS, affine=st.booleans())
@settings(max_examples=6)
def test_rows_that_are_read_a_block_at_a_time(norm, dtype, n, h, seed, affine):
    g, x, w, b = inputs((n, h), dtype, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(norm_triton, "WIDEST", 2)
        patch.setattr(norm_triton, "BLOCK", 64)
        check(norm, g, x, *((w, b) if affine else (None, None)))


@pytest.mark.parametrize("widest", [norm_triton.WIDEST, 2])
def test_a_mean_far_from_0_leaves_the_variance_its_digits(widest, monkeypatch):
    monkeypatch.setattr(norm_triton, "WIDEST", widest)
    monkeypatch.setattr(norm_triton, "BLOCK", 64)
    g, x, w, b = inputs((3, 200))
    x += np.array([[3e3], [-3e3], [0]], np.float32)
    assert differences(layer_norm, triton(layer_norm, g, x, w, b), g, x, w, b).max() < 2e-3


@NORMS
def test_cotangents_keep_their_shape(norm):
    g, x, w, b = inputs((6, 4))
    flat, deep = triton(norm, g, x, w, b), triton(norm, g.reshape(2, 3, 4), x, w, b)
    assert deep[1].shape == (2, 3, 4)
    assert all(np.array_equal(a.ravel(), e.ravel()) for a, e in zip(flat, deep))


@pytest.mark.parametrize("norm", ["layer_norm", "rms_norm"])
def test_dispatch_finds_triton(norm):
    _, x, w, b = inputs((5, 7))
    kernel, affine = {"layer_norm": (layer_norm, (w, b)), "rms_norm": (rms_norm, (w,))}[norm]
    ours, theirs = both(kernel.forward, x, *affine, EPS)
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-5, atol=1e-5)
    assert theirs[-1].shape == ((2, 5) if norm == "layer_norm" else (5,))


@NORMS
@DTYPES
@pytest.mark.parametrize("shape", [(7, 130), (30, 5)])
@pytest.mark.parametrize("wide", [False, True])
def test_bytes_moved(norm, dtype, shape, wide, monkeypatch):
    """x and y once, wide 2 + 1; g, x and dx once, wide 6 + 1; beside them vectors, once a block,
    two numbers a row, and partial sums, which are written and read."""
    monkeypatch.setattr(norm_triton, "WIDEST", 2 if wide else norm_triton.WIDEST)
    monkeypatch.setattr(norm_triton, "PROGRAMS", 3)
    monkeypatch.setattr(norm_triton, "BLOCK", 64)
    (g, x, w, _), (n, h), centred = inputs(shape, dtype), shape, norm is layer_norm
    _, constants = norm_triton.cut(n, h, dtype == "float64", centred)
    tall, columns, number = constants["ROWS"], constants["COLUMNS"], max(4, x.itemsize)
    with traffic() as count:
        _, stats = norm_triton.forward(x, w, w if centred else None, EPS, centred)
    assert stats.nbytes == (1 + centred) * n * number
    vectors = -(-n // tall) * (1 + centred) * w.nbytes
    assert dict(count) == {
        "load": (1 + wide) * x.nbytes + vectors,
        "store": x.nbytes + stats.nbytes,
    }

    with traffic() as count:
        norm_triton.backward(g, x, w, stats, centred)
    across = -(-h // columns)
    share = -(-n // (tall * max(1, 3 // across))) * tall
    programs = -(-n // share)
    sums = (1 + centred) * programs * h * number
    times = across * (3 if wide else 1)
    weights = 2 * n if wide else programs * share // tall
    assert dict(count) == {
        "load": (6 if wide else 2) * x.nbytes + times * stats.nbytes + weights * w.nbytes + sums,
        "store": x.nbytes + sums + (1 + centred) * w.nbytes,
    }


@NORMS
def test_no_atomics_so_two_runs_agree_to_the_last_bit(norm):
    g, x, w, b = inputs((70, 30))
    with traffic() as count:
        first = work(norm, "triton", g, x, w, b)
    assert "atomic" not in count
    assert all(np.array_equal(a, e) for a, e in zip(first, work(norm, "triton", g, x, w, b)))


@NORMS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(norm, dtype):
    """The loops': vectors alone beside the results, whose size is 64 and more times as large."""
    g, x, w, b = inputs((1024, 2048), dtype)
    args = (x, w, b, EPS) if norm is layer_norm else (x, w, EPS)
    saved = norm.forward(*args)[-1]
    vectors = x.nbytes // 64
    assert peak(norm.forward, *args) < vectors
    assert peak(norm.backward, g, x, w, saved) < vectors


# The controls: what the assertions above must refuse


@NORMS
def test_float32_fails_the_bound_of_float64(norm):
    arrays = inputs((30, 40))
    for found in (work(norm, "numba", *arrays), triton(norm, *arrays)):
        assert (differences(norm, found, *arrays)[:3] > 10 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel", "_add_up_kernel",
                                    "_wide_forward_kernel", "_wide_slope_kernel"])  # fmt: skip
def test_a_block_that_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, *grid[1:])]

    whole = getattr(norm_triton, kernel)
    monkeypatch.setattr(norm_triton, kernel, LastProgramMissing())
    monkeypatch.setattr(norm_triton, "BLOCK", 64)
    monkeypatch.setattr(norm_triton, "WIDEST", 2 if "wide" in kernel else norm_triton.WIDEST)
    with pytest.raises(AssertionError):
        check(layer_norm, *inputs((5, 100)))


def test_a_block_too_narrow_is_seen(monkeypatch):
    def half(*args, **options):
        wide, constants = whole(*args, **options)
        return wide, constants | {"COLUMNS": constants["COLUMNS"] // 2}

    whole = norm_triton.cut
    monkeypatch.setattr(norm_triton, "cut", half)
    with pytest.raises(AssertionError):
        check(layer_norm, *inputs((5, 100)))
