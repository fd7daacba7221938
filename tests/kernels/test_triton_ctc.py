"""CTC: tile programs ≡ loops ≡ formulas: losses, α and gradients; bytes moved."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import ctc
from minidist.kernels.dispatch import using
from support.cases import LAYOUTS, SEEDS, laid_out
from support.tritons import both, traffic

BOUND = {"float16": 2e-2, "float32": 2e-5, "float64": 1e-12}
SHAPES = [(0, 1, 0, 2), (1, 1, 1, 2), (6, 3, 2, 3), (9, 2, 4, 5), (4, 2, 3, 2), (5, 0, 2, 3)]


def inputs(shape, dtype="float32", seed=0, layout="C", blank=0):
    """log_probs, labels, lengths and sizes of (t, n, longest, c); some have no path."""
    (t, n, longest, c), rng = shape, np.random.default_rng(seed)
    logs = laid_out((rng.standard_normal((t, n, c)) - 1).astype(dtype), layout)
    labels = (blank + 1 + rng.integers(0, c - 1, (n, longest))) % c
    return logs, labels, rng.integers(0, t + 1, n), rng.integers(0, longest + 1, n)


def results(logs, labels, lengths, sizes, g, blank=0):
    """Losses, α and the cotangent of log_probs."""
    losses, alpha = ctc.forward(logs, labels, lengths, sizes, blank)
    return losses, alpha, ctc.backward(g, losses, logs, alpha, labels, lengths, sizes, blank)


def differences(found, logs, labels, lengths, sizes, g, blank=0):
    """From the formulas in float64, beside numbers of at least 1; NaN and infinities are equal."""
    with using("naive"):
        wide = logs.astype("float64"), labels, lengths, sizes, g.astype("float64"), blank
        wanted = results(*wide)
    errors = []
    for a, b in zip(found, wanted):
        assert a.shape == b.shape and a.dtype == logs.dtype
        a = a.astype("float64")
        assert np.array_equal(np.isfinite(a), np.isfinite(b))
        assert np.array_equal(a[~np.isfinite(a)], b[~np.isfinite(b)], equal_nan=True)
        a, b = a[np.isfinite(a)], b[np.isfinite(b)]
        errors.append((np.abs(a - b) / np.maximum(1, np.abs(b))).max(initial=0))
    return errors


def check(*case):
    for found in both(results, *case):
        assert max(differences(found, *case)) <= BOUND[case[0].dtype.name]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@given(shape=st.sampled_from(SHAPES), seed=SEEDS, layout=st.sampled_from(LAYOUTS),
       blank=st.integers(0, 1))  # fmt: skip
@settings(max_examples=10)
def test_triton_is_the_loop_is_the_formula(dtype, shape, seed, layout, blank):
    g = np.random.default_rng(seed).standard_normal(shape[1]).astype(dtype)
    check(*inputs(shape, dtype, seed, layout, blank), g, blank)


def test_float16_is_computed_in_float32():
    case = *inputs((6, 3, 2, 3), "float16", 1), np.ones(3, "float16")
    with using("triton"):
        assert max(differences(results(*case), *case)) <= BOUND["float16"]


def test_symbols_that_repeat():
    """Their shares meet in one class; between them a blank must stand."""
    logs = inputs((9, 2, 4, 5), "float64", 5)[0]
    labels = np.array([[1, 1, 2, 1], [3, 3, 3, 3]])
    check(logs, labels, np.array([9, 8]), np.array([4, 4]), np.ones(2))


def test_more_classes_and_states_than_a_program_compares(monkeypatch):
    monkeypatch.setattr(ctc, "COMPARED", 16)
    monkeypatch.setattr(ctc, "CLASSES", 4)
    logs, labels, *_ = inputs((8, 2, 3, 11), "float64", 2)
    check(logs, labels, np.array([8, 7]), np.array([3, 2]), np.ones(2))


@pytest.mark.parametrize("value", [np.nan, -np.inf])
def test_nan_and_infinity_reach_what_they_reach_in_the_formula(value):
    case = *inputs((6, 2, 2, 3), "float64", 3)[:2], np.array([6, 6]), np.array([2, 1]), np.ones(2)
    case[0][2, :, 0] = value  # a blank: states past the end of a label have that class too
    with np.errstate(invalid="ignore"):  # the formula's logaddexp of NaN
        check(*case)


def test_more_states_than_registers_hold_run_the_formula(monkeypatch):
    monkeypatch.setattr(ctc, "WIDEST", 8)
    monkeypatch.setattr(ctc, "_forward_kernel", None)
    monkeypatch.setattr(ctc, "_shares_kernel", None)
    check(*inputs((9, 2, 4, 5), "float64"), np.ones(2))


def test_int32_lengths_and_labels():
    logs, *spelled = inputs((6, 3, 2, 3), "float64", 4)
    check(logs, *(a.astype("int32") for a in spelled), np.ones(3))


def test_bytes_moved():
    """A number for each state and step, each way; the shares are written and read."""
    logs, labels, *_ = inputs((7, 2, 3, 5), "float32")
    lengths, sizes = np.array([7, 5]), np.array([3, 2])
    states = 4 * int((lengths * (2 * sizes + 1)).sum())
    spelled = 8 * (3 + 2) * 2  # labels, and those before them; the rows are of full length
    both_numbers = 8 * 2 * 2  # lengths and sizes
    with using("triton"), traffic() as count:
        losses, alpha = ctc.forward(logs, labels, lengths, sizes, 0)
    stored = alpha.nbytes + losses.nbytes
    assert dict(count) == {"load": states + spelled + both_numbers, "store": stored}
    with using("triton"), traffic() as count:
        out = ctc.backward(np.ones(2, "float32"), losses, logs, alpha, labels, lengths, sizes, 0)
    onward = 8 * (3 + 2 + 2 + 2) * 2  # labels of s, and of s + 2, where the first is left out
    by_class = states + spelled // 2 * 12 + both_numbers * 7
    load = 2 * states + onward + both_numbers + 2 * 4 * 2 + by_class
    assert dict(count) == {"load": load, "store": states + out.nbytes}


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    case = *inputs((9, 2, 4, 5), "float32")[:2], np.array([9, 9]), np.array([4, 3]), np.ones(2, "f")
    assert min(differences(both(results, *case)[1], *case)) > 100 * BOUND["float64"]


def test_a_way_from_two_states_before_is_seen():
    """Between equal symbols there is none, so another label has another loss."""
    logs, lengths, sizes = inputs((9, 1, 4, 5), "float64")[0], np.array([9]), np.array([4])
    logs[:] = -1  # which symbols there are makes no other difference
    with using("triton"):
        one, other = (
            ctc.forward(logs, np.array([label]), lengths, sizes, 0)[0]
            for label in ([1, 2, 3, 4], [1, 1, 1, 1])
        )
    assert other - one > 1


@pytest.mark.parametrize("name", ["_forward_kernel", "_shares_kernel", "_classes_kernel"])
def test_a_block_that_no_program_writes_is_seen(name, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1, *grid[1:])]

    whole = getattr(ctc, name)
    monkeypatch.setattr(ctc, name, LastProgramMissing())
    case = *inputs((9, 2, 4, 5), "float64")[:2], np.array([9, 9]), np.array([4, 3]), np.ones(2)
    with pytest.raises(AssertionError):
        check(*case)
