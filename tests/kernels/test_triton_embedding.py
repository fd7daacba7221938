"""An embedding's gradient in Triton ≡ in NumPy ≡ the formula in float64; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import embedding
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import both, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SHAPES = [(0, 3, 4), (1, 1, 1), (40, 5, 3), (30, 300, 20), (25, 8, 1), (3, 0, 4)]  # n, h, rows
BOUND = {"float16": 2**-10, "float32": 1e-6, "float64": 1e-14}
BOUND_NUMPY = {**BOUND, "float16": 1.2e-2}  # where each of up to 24 sums rounds by 2⁻¹¹


def inputs(shape, dtype="float32", seed=0, layout="C"):
    rng, (n, h, rows) = np.random.default_rng(seed), shape
    g = laid_out(rng.standard_normal((n, h)).astype(dtype), layout)
    return g, rng.integers(0, rows, n), rows


def difference(found, g, index, rows):
    """From the formula in float64, beside numbers of at least 1."""
    wanted = embedding.backward.formula(g.astype("float64"), index, rows)
    assert found.dtype == g.dtype and found.shape == wanted.shape
    return (np.abs(found - wanted) / np.maximum(1, np.abs(wanted))).max(initial=0)


def check(g, *rest):
    ours, tritons = both(embedding.backward, g, *rest)
    assert difference(ours, g, *rest) <= BOUND_NUMPY[g.dtype.name]
    assert difference(tritons, g, *rest) <= BOUND[g.dtype.name]


@DTYPES
@given(shape=st.sampled_from(SHAPES), seed=SEEDS, layout=st.sampled_from(LAYOUTS))
@settings(max_examples=15)
def test_triton_is_numpy_is_the_formula(dtype, shape, seed, layout):
    check(*inputs(shape, dtype, seed, layout))


@pytest.mark.parametrize("kind", ["int32", "int64", "uint8"])
def test_indices_of_any_integers(kind):
    g, index, rows = inputs((40, 5, 3))
    check(g, index.astype(kind), rows)


@DTYPES
@pytest.mark.parametrize("shape", [(40, 5, 3), (30, 300, 20)])
def test_bytes_moved(dtype, shape):
    """g is read and the table written once; for each block of columns also the order of g's rows,
    and where each row's run starts and ends."""
    g, index, rows = inputs(shape, dtype)
    with using("triton"), traffic() as count:
        table = embedding.backward(g, index, rows)
    beside = -(-shape[1] // embedding.BLOCK) * 8 * (len(index) + 2 * rows)
    assert dict(count) == {"load": g.nbytes + beside, "store": table.nbytes}


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    case = inputs((200, 5, 3))
    for found in both(embedding.backward, *case):
        assert difference(found, *case) > 100 * BOUND["float64"]


@pytest.mark.parametrize("axis", [0, 1])
def test_a_block_that_no_program_writes_is_seen(axis, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[tuple(n - (i == axis) for i, n in enumerate(grid))]

    whole = embedding._runs_kernel
    monkeypatch.setattr(embedding, "_runs_kernel", LastProgramMissing())
    with pytest.raises(AssertionError):
        check(*inputs((30, 300, 20)))


def test_a_run_cut_short_is_seen(monkeypatch):
    search = embedding.xp.searchsorted
    monkeypatch.setattr(embedding.xp, "searchsorted", lambda *a: search(*a) // 2)
    with pytest.raises(AssertionError):
        check(*inputs((40, 5, 3)))
