"""The pointwise parts of LSTM and GRU: loop ≡ tile program ≡ the formula in float64; bytes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import gru_cell, lstm_cell, recurrent
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import poisoned, traffic

CELLS = {"LSTM": lstm_cell, "GRU": gru_cell}
KINDS = pytest.mark.parametrize("kind", CELLS)
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
VERSIONS = ("numba", "triton")
SHAPES = [(0, 3), (1, 1), (3, 5), (2, 600), (9, 16)]
BOUND = {"float16": 1e-2, "float32": 3e-6, "float64": 2e-14}


def inputs(kind, shape, dtype="float32", seed=0, layout="C"):
    """The parts of the gates of input and state; c or h; two cotangents, and that of c'."""
    rng, (n, h) = np.random.default_rng(seed), shape
    width = recurrent.GATES[kind] * h
    sizes = (n, width), (n, width), (n, h), (n, h), (n, h), (n, h)
    return [laid_out(rng.standard_normal(s).astype(dtype), layout) for s in sizes]


def bias(h, dtype):
    """i, f, g, o of an LSTM; r, z and both parts of n of a GRU."""
    return np.linspace(-1, 1, 4 * h).astype(dtype)


def forward(kind, a, m, c, b=None, out=None):
    """Both results, and what the gates have become."""
    gates = np.array(a, order="C")
    return *CELLS[kind].forward(gates, m, c, b, out), gates


def run(kind, version, a, m, c, g, dh, dc, b=None):
    """All that forward and backward return; dc is written to, so a copy is given."""
    dc = np.array(dc, order="C")
    quiet = (
        "ignore" if version == "triton" else "warn"
    )  # the interpreter's exp overflows, to no harm
    with using(version), poisoned(), np.errstate(over=quiet):
        state, other, gates = forward(kind, a, m, c, b)
        if kind == "GRU":
            return state, other, gates, *gru_cell.backward(g, dh, gates, other, c)
        return state, other, gates, lstm_cell.backward(g, dh, dc, gates, c, other), dc


def differences(kind, version, *arrays):
    wanted = run(kind, "naive", *(None if a is None else a.astype("float64") for a in arrays))
    found = run(kind, version, *arrays)
    assert all(a.dtype == arrays[0].dtype and a.shape == w.shape for a, w in zip(found, wanted))
    errors = [np.abs(a - w) / np.maximum(1, np.abs(w)) for a, w in zip(found, wanted)]
    return np.array([e.max(initial=0) for e in errors])


@KINDS
@DTYPES
@given(shape=st.sampled_from(SHAPES), seed=SEEDS, layout=st.sampled_from(LAYOUTS),
       biased=st.booleans())  # fmt: skip
@settings(max_examples=10)
def test_every_version_is_the_formula(kind, dtype, shape, seed, layout, biased):
    arrays = inputs(kind, shape, dtype, seed, layout)
    b = bias(shape[1], dtype) if biased else None
    for version in VERSIONS:
        assert (differences(kind, version, *arrays, b) < BOUND[dtype]).all()


@KINDS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_row_does_not_depend_on_the_others(kind, dtype):
    arrays = inputs(kind, (7, 37), dtype)
    whole = run(kind, "numba", *arrays)
    part = run(kind, "numba", *(a[3:5] for a in arrays))
    for found, wanted in zip(part, whole, strict=True):
        np.testing.assert_array_equal(found, wanted[3:5])


@KINDS
@pytest.mark.parametrize("version", [*VERSIONS, "naive"])
def test_nan_and_infinity_stay_in_their_unit(kind, version):
    """Of one row and one unit: of its gates, and not of its neighbours'."""
    for value in (np.nan, np.inf, -np.inf):
        a, *rest = inputs(kind, (3, 20))
        clean = run(kind, version, a, *rest)
        a[1, 4] = value
        with np.errstate(invalid="ignore"):
            found = run(kind, version, a, *rest)
        assert np.isfinite(value) or np.isnan(found[0][1, 4]) == np.isnan(value)
        for y, old in zip(found, clean, strict=True):
            y, old = (z.reshape(3, -1, 20) for z in (y, old))
            np.testing.assert_array_equal(np.delete(y, 4, 2), np.delete(old, 4, 2))
            np.testing.assert_array_equal(y[[0, 2]], old[[0, 2]])


@KINDS
@pytest.mark.parametrize("version", [*VERSIONS, "naive"])
def test_it_is_the_step_of_the_whole_layer(kind, version):
    """Whose formula is another text."""
    a, m, c, *_ = inputs(kind, (3, 4), "float64")
    width, b, given = a.shape[1], bias(4, "float64"), m.copy()
    if kind == "GRU":  # the bias of r and of z is in one of the products, of n in each
        a_bias, m[:, 8:] = b[:12], m[:, 8:] + b[12:]
    else:
        a_bias = b
    with using(version):
        found = forward(kind, a, given, c, b)
    # the identity in W_ih's place, nothing in W_hh's, whose bias is m: for each row another one
    h, new = recurrent.naive(kind, a, c, c, np.eye(width), np.zeros((width, 4)), a_bias, m)
    np.testing.assert_allclose(found[0], h, rtol=1e-13)
    if kind == "LSTM":
        np.testing.assert_allclose(found[1], new, rtol=1e-13)


@KINDS
@pytest.mark.parametrize("version", [*VERSIONS, "naive"])
def test_cotangents_are_slopes(kind, version):
    """By differences of a sum of h' and c', weighted by their cotangents."""
    a, m, c, g, dh, dc = inputs(kind, (2, 3), "float64")
    weights = (g + dh, dc) if kind == "LSTM" else (g + dh,)
    total = lambda *at: sum((d * y).sum() for d, y in zip(weights, forward(kind, *at)))
    back = run(kind, version, a, m, c, g, dh, dc)[3:]
    slopes = (back[0], *back) if kind == "LSTM" else back  # an LSTM's parts have the same ones
    for at, found in enumerate(slopes):
        for place in ((1, 2), (0, found.shape[1] - 1), (1, found.shape[1] // 2)):
            step = np.zeros_like(found)
            step[place] = 1e-6
            up, down = ([x + s * step if k == at else x for k, x in enumerate((a, m, c))]
                        for s in (1, -1))  # fmt: skip
            assert abs((total(*up) - total(*down)) / 2e-6 - found[place]) < 1e-7


@KINDS
@pytest.mark.parametrize("version", [*VERSIONS, "naive"])
def test_results_go_where_they_are_wanted(kind, version):
    """Into arrays that are given; the cotangent of h into the place of the one that came."""
    a, m, c, g, dh, dc = inputs(kind, (3, 5), "float64")
    wanted = run(kind, version, a, m, c, g, dh, dc)
    out, gates = tuple(np.empty_like(w) for w in wanted[:2]), a.copy()
    with using(version):
        assert CELLS[kind].forward(gates, m, c, None, out) is out
        if kind == "GRU":
            places = np.empty_like(a), np.empty_like(a), dh
            gru_cell.backward(g, dh, gates, out[1], c, places)
        else:
            places = np.empty_like(a), dc
            lstm_cell.backward(g, dh, dc, gates, c, out[1], places[0])
    for found, w in zip((*out, gates, *places), wanted, strict=True):
        np.testing.assert_array_equal(found, w)


@DTYPES
def test_bytes_moved(dtype):
    """In arrays (n, h), the header's: 9 read and 6 written, back 9 and 5; GRU: 7, 5, 7 and 7."""
    a, m, c, g, dh, dc = inputs("LSTM", (2, 600), dtype)
    with using("triton"), traffic() as count:
        _, new = lstm_cell.forward(a, m, c)
    assert dict(count) == {"load": 9 * c.nbytes, "store": 6 * c.nbytes}
    with using("triton"), traffic() as count:
        lstm_cell.backward(g, dh, dc, a, c, new)
    assert dict(count) == {"load": 9 * c.nbytes, "store": 5 * c.nbytes}
    a, m, h, g, dh, _ = inputs("GRU", (2, 600), dtype)
    with using("triton"), traffic() as count:
        _, hidden = gru_cell.forward(a, m, h)
    assert dict(count) == {"load": 7 * h.nbytes, "store": 5 * h.nbytes}
    with using("triton"), traffic() as count:
        gru_cell.backward(g, dh, a, hidden, h)
    assert dict(count) == {"load": 7 * h.nbytes, "store": 7 * h.nbytes}


@KINDS
@pytest.mark.parametrize("version", [*VERSIONS, "naive"])
def test_gates_far_out_saturate_without_a_warning(kind, version):
    arrays = inputs(kind, (2, 3), "float32")
    arrays[0][...] = np.array([[1e30], [-1e30]])
    assert all(np.isfinite(found).all() for found in run(kind, version, *arrays))


@KINDS
@pytest.mark.parametrize("version", VERSIONS)
def test_gates_with_gaps_are_refused(kind, version):
    """The results would be in a copy of them."""
    a, m, c, *_ = inputs(kind, (3, 5))
    gates = np.stack([a, a], 1)[:, 0]
    with using(version), pytest.raises((TypeError, AssertionError), match="gates"):
        CELLS[kind].forward(gates, m, c)


# The controls: what the assertions above must refuse


@KINDS
@pytest.mark.parametrize("version", VERSIONS)
def test_float32_fails_the_bound_of_float64(kind, version):
    given = *inputs(kind, (30, 40)), bias(40, "float32")
    assert (differences(kind, version, *given) > 100 * BOUND["float64"]).all()


@KINDS
@pytest.mark.parametrize("kernel", ["_cell_kernel", "_slopes_kernel"])
def test_a_block_that_no_program_writes_is_seen(kind, kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0], grid[1] - 1)]

    whole = getattr(CELLS[kind], kernel)
    monkeypatch.setattr(CELLS[kind], kernel, LastProgramMissing())
    with np.errstate(all="ignore"):
        found = differences(kind, "triton", *inputs(kind, (2, 600)))
    assert not (found < BOUND["float32"]).all()
