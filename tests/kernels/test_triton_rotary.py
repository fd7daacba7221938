"""Rotary embedding: tile program ≡ loop ≡ formula in float64; its inverse; bytes moved."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import rotary
from support.cases import LAYOUTS, SEEDS, laid_out, numbers
from support.peak import peak
from support.tritons import both, traffic

PAIRS = pytest.mark.parametrize("interleaved", [True, False])
DTYPES = pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
# x (…, d) and its angles (…, d/2): shared by none, by those right of them, left of them, between
SHAPES = [
    ((4,), (2,)), ((1, 2), (1, 1)), ((5, 6), (5, 3)), ((2, 3, 4), (3, 2)), ((2, 3, 4), (2, 1, 2)),
    ((2, 3, 5, 2), (5, 1)), ((2, 5, 3, 10), (5, 1, 5)), ((2, 3, 2, 4), (2, 1, 2, 2)),
    ((2, 3, 2, 2, 4), (2, 1, 2, 1, 2)), ((2, 2, 2, 2, 4), (2, 1, 2, 2)),
    ((2, 2, 2, 2, 3, 4), (2, 1, 2, 1, 3, 2)), ((2, 2, 2, 2, 2, 4), (1, 2, 1, 2, 1, 2)),
    ((2, 6, 17, 8), (17, 4)), ((0, 3, 4), (3, 2)), ((3, 0, 4), (0, 2)), ((2, 3, 4), (1, 2)),
]  # fmt: skip
BOUND = {"float16": 2**-10, "float32": 2**-21, "float64": 2**-50}


def operands(shapes, dtype, seed=0, layout="C"):
    x = laid_out(numbers(shapes[0], seed, dtype), layout)
    turn = np.exp(1j * np.random.default_rng(seed).uniform(-9, 9, shapes[1]))
    return x, turn.astype("complex128" if dtype == "float64" else "complex64")


def difference(y, x, turn, interleaved):
    """From the formula's value in float64, beside the length of a pair: 2√2 at most."""
    wanted = rotary.rotate.versions["naive"](x.astype(np.float64), turn, interleaved)
    assert y.dtype == x.dtype and y.shape == x.shape
    return np.abs(y - wanted).max(initial=0) / (2 * math.sqrt(2))


def check(x, turn, interleaved):
    for y in both(rotary.rotate, x, turn, interleaved):
        assert difference(y, x, turn, interleaved) <= BOUND[x.dtype.name]
        for back in both(rotary.backward, y, turn, interleaved):
            assert difference(back, y, turn.conj(), interleaved) <= BOUND[x.dtype.name]
            assert np.abs(back - x).max(initial=0) <= 8 * BOUND[x.dtype.name], "no rotation back"


@PAIRS
@DTYPES
@given(shapes=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=20)
def test_triton_is_loop_is_formula(interleaved, dtype, shapes, layout, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rotary, "TILE", 64)
        check(*operands(shapes, dtype, seed, layout), interleaved)


@PAIRS
@given(axes=st.permutations(range(3)), seed=SEEDS)
@settings(max_examples=10)
def test_heads_that_are_views(interleaved, axes, seed):
    """Queries cut out of one product, their axes exchanged: nothing is copied on the way."""
    _, turn = operands(((4,), (3, 2)), "float32", seed)
    packed = numbers((2, 3, 3, 12), seed, "float32").transpose(*axes, 3)[..., 4:8]
    x = np.moveaxis(packed, axes.index(1), 2)
    check(x, turn, interleaved)
    assert rotary._laid_out(x, turn)[0] is x


@PAIRS
@DTYPES
@pytest.mark.parametrize("shapes", [((2, 9, 33, 8), (33, 4)), ((5, 9, 4), (5, 1, 2))])
def test_bytes_moved(interleaved, dtype, shapes):
    """x is read once and y written once; the table is read once for GROUP heads that share it."""
    x, turn = operands(shapes, dtype)
    sharing = x[..., 0].size // turn[..., 0].size
    with traffic() as count:
        both(rotary.rotate, x, turn, interleaved)
    table = turn.nbytes * -(-sharing // rotary.GROUP)
    assert dict(count) == {"load": x.nbytes + table, "store": x.nbytes}


@PAIRS
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_temporary_memory(interleaved, dtype):
    """Cosines and sines apart; the formula's products are as large as x."""
    x, turn = operands(((8, 2, 512, 64), (512, 32)), dtype)
    assert peak(rotary.rotate, x, turn, interleaved) < turn.nbytes + (1 << 14)
    assert peak(rotary.rotate.formula, x, turn, interleaved) > turn.nbytes + (1 << 14)


@PAIRS
def test_nan_and_infinity_stay_in_their_pair(interleaved):
    x, turn = operands(((3, 5, 16), (5, 8)), "float32")
    clean = rotary.rotate(x, turn, interleaved)
    x[1, 2, 4], x[2, 3, 0] = np.nan, np.inf
    found = rotary.rotate(x, turn, interleaved)
    np.testing.assert_array_equal(found, rotary.rotate.formula(x, turn, interleaved))
    assert (found != clean).sum() == 4 and np.isnan(found[1, 2]).sum() == 2


# The controls: what the assertions above must refuse


@PAIRS
@pytest.mark.parametrize("mutant", ["layout", "angles", "float32", "heads"])
def test_mutants_are_seen(mutant, interleaved, monkeypatch):
    x, turn = operands(((2, 3, 6, 8), (6, 4)), "float64")
    check(x, turn, interleaved)
    triton = rotary.rotate.versions["triton"]
    wrong = {
        "layout": lambda x, turn, how: triton(x, turn, not how),
        "angles": lambda x, turn, how: triton(x, turn.conj(), how),
        "float32": lambda x, turn, how: triton(x.astype("f"), turn, how).astype(x.dtype),
        "heads": lambda x, turn, how: triton(x[:, ::-1], turn, how),
    }[mutant]
    monkeypatch.setitem(rotary.rotate.versions, "triton", wrong)
    with pytest.raises(AssertionError):
        check(x, turn, interleaved)


@PAIRS
def test_a_head_that_no_program_turns_is_seen(interleaved, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return kernel[(grid[0] - 1,)]

    kernel = rotary._rotary_kernel
    monkeypatch.setattr(rotary, "_rotary_kernel", LastProgramMissing())
    with pytest.raises(AssertionError):
        check(*operands(((2, 3, 6, 8), (6, 4)), "float32"), interleaved)
