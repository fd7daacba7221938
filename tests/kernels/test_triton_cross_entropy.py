"""Cross-entropy's tile program ≡ its loop ≡ the formula in float64, both ways; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import cross_entropy
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import wide
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import poisoned, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SHAPES = [(0, 5), (1, 1), (7, 2), (40, 10), (3, 300), (2, 150), (5, 129)]
BOUND = {"float16": 2**-10, "float32": 2e-6, "float64": 1e-14}


def inputs(shape, dtype="float32", seed=0, layout="C"):
    """g, logits and targets."""
    rng = np.random.default_rng(seed)
    g, logits = (rng.standard_normal(s).astype(dtype) * 4 for s in (shape[0], shape))
    return g, laid_out(logits, layout), rng.integers(0, shape[1], shape[0])


def run(version, g, logits, target):
    """Losses, dlogits, and both from `gradient_` (with g 1)."""
    with using(version), poisoned():
        losses, sums = cross_entropy.forward(logits, target)
        dlogits, inside = cross_entropy.backward(g, logits, sums, target), logits.copy("C")
        return losses, dlogits, cross_entropy.gradient_(inside, target), inside


def differences(version, g, logits, target):
    """From the formula in float64, beside numbers of at least 1."""
    wanted = run("naive", g.astype("float64"), logits.astype("float64"), target)
    found = run(version, g, logits, target)
    kinds = [logits.dtype] * 2 + [wide(logits).dtype, logits.dtype]  # gradient_'s losses in 32 bits
    assert [a.dtype for a in found] == kinds and [a.shape for a in found] == [
        w.shape for w in wanted
    ]
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.array([e.max(initial=0) for e in errors])


def check(g, logits, target):
    name = logits.dtype.name
    assert (differences("triton", g, logits, target) <= BOUND[name]).all()
    assert (differences("numba", g, logits, target) <= BOUND[name]).all()


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """So that a row of a thousand logits takes several blocks."""
    monkeypatch.setattr(cross_entropy, "BLOCK", 128)


@DTYPES
@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=10)
def test_triton_is_the_loop_is_the_formula(dtype, shape, layout, seed):
    check(*inputs(shape, dtype, seed, layout))


@pytest.mark.parametrize("version", ["numba", "triton"])
@pytest.mark.parametrize("shift", [-300, 300, 1e4])
def test_logits_that_lie_anywhere(version, shift):
    g, logits, target = inputs((4, 300))
    assert (differences(version, g, logits + np.float32(shift), target) <= 1e-6).all()


@pytest.mark.parametrize("version", ["numba", "triton"])
def test_classes_that_are_ruled_out(version):
    """Logits of -inf, more of them than a block holds; and such a target."""
    g, logits, target = inputs((3, 300))
    logits[:, 5:200] = -np.inf
    target[:] = 2, 250, 7
    losses, dlogits, *_ = run(version, g, logits, target)
    assert np.isfinite(losses[:2]).all() and losses[2] == np.inf
    assert np.isfinite(dlogits).all() and (dlogits[:2, 5:200] == 0).all()
    logits[:, :5] = -np.inf  # now a block that holds nothing comes first
    assert np.isfinite(run(version, g, logits, np.array([201, 202, 203]))[0]).all()


@DTYPES
@pytest.mark.parametrize("shape", [(3, 300), (20, 10), (0, 4)])
def test_bytes_moved(dtype, shape):
    """Forward reads the logits once; backward reads them again and writes their cotangent;
    besides, targets, losses, cotangents and two sums a row (for each block of the row)."""
    g, logits, target = inputs(shape, dtype)
    blocks, sums = -(-shape[1] // 128), 2 * shape[0] * (8 if dtype == "float64" else 4)
    with using("triton"), traffic() as count:
        losses, saved = cross_entropy.forward(logits, target)
    forward = {"load": logits.nbytes + target.nbytes, "store": losses.nbytes + sums}
    assert dict(count) == (forward if logits.size else {})
    with using("triton"), traffic() as count:
        cross_entropy.backward(g, logits, saved, target)
    read = logits.nbytes + blocks * (target.nbytes + g.nbytes + sums)
    assert dict(count) == ({"load": read, "store": logits.nbytes} if logits.size else {})


@DTYPES
def test_bytes_moved_in_place(dtype):
    _, logits, target = inputs((3, 300), dtype)
    with using("triton"), traffic() as count:
        losses = cross_entropy.gradient_(logits, target)
    read = 2 * logits.nbytes + target.nbytes
    assert dict(count) == {"load": read, "store": logits.nbytes + losses.nbytes}


# The controls: what the assertions above must refuse


@pytest.mark.parametrize("version", ["numba", "triton"])
def test_float32_fails_the_bound_of_float64(version):
    assert (differences(version, *inputs((30, 40))) > 100 * BOUND["float64"]).all()


@pytest.mark.parametrize(
    "kernel, axis", [("_loss_kernel", 0), ("_slope_kernel", 0), ("_slope_kernel", 1)]
)
def test_a_block_that_no_program_writes_is_seen(kernel, axis, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[tuple(n - (i == axis) for i, n in enumerate(grid))]

    whole = getattr(cross_entropy, kernel)
    monkeypatch.setattr(cross_entropy, kernel, LastProgramMissing())
    with pytest.raises(AssertionError):
        check(*inputs((3, 300)))


def test_a_target_beside_the_right_one_is_seen():
    g, logits, target = inputs((5, 30))
    found, other = (run("triton", g, logits, t) for t in (target, (target + 1) % 30))
    assert all(np.abs(a - b).max() > 0.01 for a, b in zip(found, other))
