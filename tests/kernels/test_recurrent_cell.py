"""An LSTM's pointwise part in Triton ≡ in NumPy ≡ the formula in float64; bytes moved; memory."""

import numpy as np
import pytest
from cases import LAYOUTS, SEEDS, laid_out, tiny_tiles
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import recurrent, recurrent_cell
from minidist.kernels.dispatch import using
from minidist.kernels.tiles import ROW_ELEMENTS
from peak import peak
from tritons import poisoned, traffic

DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
SHAPES = [(0, 3), (1, 1), (3, 5), (2, 600), (9, 16)]
BOUND = {"float16": 1e-2, "float32": 2e-6, "float64": 1e-14}


def inputs(shape, dtype="float32", seed=0, layout="C"):
    """dh, dc', the gates and c."""
    rng, (n, h) = np.random.default_rng(seed), shape
    sizes = (n, h), (n, h), (n, 4 * h), (n, h)
    return [laid_out(rng.standard_normal(s).astype(dtype) * 2, layout) for s in sizes]


def run(version, dh, dnew, a, c):
    with using(version), poisoned(), np.errstate(over="ignore"):
        state, new, values = recurrent_cell.forward(a, c)
        return state, new, values, *recurrent_cell.backward(dh, dnew, values, c, new)


def differences(version, *arrays):
    wanted = run("naive", *(a.astype("float64") for a in arrays))
    found = run(version, *arrays)
    assert all(a.dtype == arrays[0].dtype and a.shape == w.shape for a, w in zip(found, wanted))
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.array([e.max(initial=0) for e in errors])


@DTYPES
@given(shape=st.sampled_from(SHAPES), seed=SEEDS, layout=st.sampled_from(LAYOUTS),
       tile=st.integers(1, 99))  # fmt: skip
@settings(max_examples=10)
def test_triton_is_numpy_is_the_formula(dtype, shape, seed, layout, tile):
    with tiny_tiles(tile):
        for version in ("numpy", "triton"):
            assert (differences(version, *inputs(shape, dtype, seed, layout)) < BOUND[dtype]).all()


def test_it_is_the_step_of_the_whole_layer():
    _, _, a, c = inputs((3, 4), "float64")
    h, new = recurrent.naive("LSTM", a, np.zeros((3, 4)), c, np.eye(16), np.zeros((16, 4)))
    np.testing.assert_allclose(recurrent_cell.forward(a, c)[:2], (h, new), rtol=1e-13)


def test_cotangents_are_slopes():
    """By differences of a sum of h' and c', weighted by their cotangents."""
    dh, dnew, a, c = inputs((2, 3), "float64")
    total = lambda a, c: sum((d * y).sum() for d, y in zip((dh, dnew), recurrent_cell.naive(a, c)))
    for version in ("naive", "numpy", "triton"):
        *_, da, dc = run(version, dh, dnew, a, c)
        for found, at in ((da, 0), (dc, 1)):
            step = np.zeros_like((a, c)[at])
            step[1, 2] = 1e-6
            up, down = ([x + s * step if k == at else x for k, x in enumerate((a, c))]
                        for s in (1, -1))  # fmt: skip
            assert abs((total(*up) - total(*down)) / 2e-6 - found[1, 2]) < 1e-7


@DTYPES
def test_bytes_moved(dtype):
    """In arrays (n, h): 5 read and 6 written; back, 8 read and 5 written."""
    dh, dnew, a, c = inputs((2, 600), dtype)
    with using("triton"), traffic() as count:
        _, new, values = recurrent_cell.forward(a, c)
    assert dict(count) == {"load": 5 * c.nbytes, "store": 6 * c.nbytes}
    with using("triton"), traffic() as count:
        recurrent_cell.backward(dh, dnew, values, c, new)
    assert dict(count) == {"load": 8 * c.nbytes, "store": 5 * c.nbytes}


@DTYPES
def test_temporary_memory(dtype):
    dh, dnew, a, c = inputs((1024, 1024), dtype)
    tile = 1.1 * ROW_ELEMENTS * c.itemsize
    assert peak(recurrent_cell.forward, a, c) < 3 * tile
    _, new, values = recurrent_cell.forward(a, c)
    assert peak(recurrent_cell.backward, dh, dnew, values, c, new) < 6 * tile


# The controls: what the assertions above must refuse


@pytest.mark.parametrize("version", ["numpy", "triton"])
def test_float32_fails_the_bound_of_float64(version):
    assert (differences(version, *inputs((30, 40))) > 100 * BOUND["float64"]).all()


@pytest.mark.parametrize("kernel", ["_cell_kernel", "_slopes_kernel"])
def test_a_block_that_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0], grid[1] - 1)]

    whole = getattr(recurrent_cell, kernel)
    monkeypatch.setattr(recurrent_cell, kernel, LastProgramMissing())
    assert not (differences("triton", *inputs((2, 600))) < BOUND["float32"]).all()
