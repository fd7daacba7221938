"""Cross-entropy of a linear layer in chunks ≡ the formula in float64; memory; odd cotangents."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import linear_cross_entropy as kernel
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import wide
from support.cases import SEEDS
from support.peak import peak
from support.tritons import poisoned

SHAPES = [(0, 3, 4), (1, 1, 1), (7, 5, 11), (20, 8, 9), (9, 16, 40)]
BOUND = {"float16": 5e-3, "float32": 4e-6, "float64": 1e-14}
DTYPES = pytest.mark.parametrize("dtype", BOUND)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    monkeypatch.setattr(kernel, "LEAST", 3)


def inputs(shape, dtype="float32", seed=0):
    """g, hidden, weight and target."""
    rng, (n, h, v) = np.random.default_rng(seed), shape
    g, hidden, weight = (rng.standard_normal(s).astype(dtype) for s in (n, (n, h), (v, h)))
    return g, hidden, weight, rng.integers(0, v, n)


def run(version, g, hidden, weight, target, expect=None):
    with using(version), poisoned():
        losses, saved = kernel.forward(hidden, weight, target, expect)
        return losses, *kernel.backward(g, saved, hidden, weight, target)


def difference(version, g, hidden, weight, target, expect=None):
    exact = [a.astype("float64") for a in (g, hidden, weight)]
    wanted, found = run("naive", *exact, target), run(version, g, hidden, weight, target, expect)
    assert [a.dtype for a in found] == [wide(hidden).dtype, hidden.dtype, hidden.dtype]
    assert [a.shape for a in found] == [w.shape for w in wanted]
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.max([e.max(initial=0) for e in errors])


@DTYPES
@given(shape=st.sampled_from(SHAPES), seed=SEEDS)
@settings(max_examples=10)
def test_any_cotangents(dtype, shape, seed):
    assert difference("numba", *inputs(shape, dtype, seed)) <= BOUND[dtype]


@DTYPES
def test_triton(dtype):
    assert difference("triton", *inputs((7, 16, 20), dtype)) <= BOUND[dtype]


@pytest.fixture
def passes(monkeypatch):
    """How often logits were made."""
    found, chunks = [], kernel._chunks
    monkeypatch.setattr(kernel, "_chunks", lambda *a: found.append(1) or chunks(*a))
    return found


@DTYPES
def test_cotangents_as_expected_make_no_logits(dtype, passes):
    _, *rest = inputs((20, 8, 9), dtype)
    g = np.full(20, 0.25, dtype)
    assert difference("numba", g, *rest) <= BOUND[dtype]
    kept = (np.arange(20) % 3 > 0).astype(dtype)
    assert difference("numba", g * kept, *rest, kept) <= BOUND[dtype]
    assert len(passes) == 2
    assert difference("numba", g, *rest, kept) <= BOUND[dtype]
    assert difference("numba", g, *rest, 0 * kept) <= BOUND[dtype]
    assert len(passes) == 6


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(dtype, monkeypatch):
    """Twice a chunk's logits and its hidden states, besides what a tile's losses take."""
    monkeypatch.setattr(kernel, "LEAST", 256)
    g, hidden, weight, target = inputs((2048, 64, 4096), dtype)
    rows = kernel.chunk_rows(2048, 64, 4096)
    limit = (2 * rows * 4096 + rows * 64 + 2 * (1 << 18)) * hidden.itemsize
    assert limit < 0.4 * 2048 * 4096 * hidden.itemsize
    assert peak(kernel.forward, hidden, weight, target) < limit
    _, saved = kernel.forward(hidden, weight, target)
    assert peak(kernel.backward, g, saved, hidden, weight, target) < limit


# The controls: what the assertions above must refuse


def test_all_logits_at_once_fail_the_bound_of_memory():
    _, hidden, weight, target = inputs((2048, 64, 4096))
    assert peak(kernel.forward.formula, hidden, weight, target) > 2048 * 4096 * 4


def test_one_factor_for_unlike_cotangents_is_seen(monkeypatch):
    monkeypatch.setattr(kernel, "_factor", lambda g, expect: g[0])
    assert difference("numba", *inputs((20, 8, 9))) > 0.1


def test_float32_fails_the_bound_of_float64():
    assert difference("numba", *inputs((20, 8, 9))) > 100 * BOUND["float64"]


@DTYPES
@pytest.mark.parametrize("version", ["numba", "triton"])
def test_the_cotangent_of_a_sum_makes_no_logits_again(version, dtype, passes):
    g, hidden, weight, target = inputs((7, 5, 11), dtype)
    kept = (np.arange(7) % 3 > 0).astype(g.dtype)
    for expect in (None, kept):
        passes.clear()
        with using(version):
            _, saved = kernel.forward(hidden, weight, target, expect)
            found = kernel.backward(np.asarray(g[0]), saved, hidden, weight, target)
        assert len(passes) == 1
        each = g[0].astype("d") * (np.ones(7) if expect is None else kept)
        wide_ones = [a.astype("d") for a in (each, hidden, weight)]
        for a, w in zip(found, run("naive", *wide_ones, target)[1:]):
            assert np.abs(a - w).max() <= BOUND[dtype] * max(1, np.abs(w).max())
