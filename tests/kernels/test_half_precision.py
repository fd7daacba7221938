"""float16 and bfloat16: to float32 and back, and rounded to the nearest."""

import numpy as np
import pytest
from hypothesis import given
from minidist.kernels import half_precision
from minidist.kernels.dispatch import using
from minidist.kernels.half_precision import BFLOAT16, wide
from support.cases import SEEDS


def test_bfloat16_and_back():
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers = wide(bits.view(BFLOAT16))
    with np.errstate(invalid="ignore"):  # half of the NaNs are signalling
        back = numbers.astype(BFLOAT16)
    real = ~np.isnan(numbers)
    np.testing.assert_array_equal(back.view(np.uint16)[real], bits[real])
    assert np.isnan(wide(back[~real])).all()


@given(seed=SEEDS)
def test_bfloat16_is_the_nearest(seed):
    x = np.random.default_rng(seed).integers(0, 0x7F7F8000, 999, np.uint32).view(np.float32)
    near = x.astype(BFLOAT16).view(np.uint16)
    beside = ((near + np.uint16(i)).view(BFLOAT16) for i in (0, 1, 2**16 - 1))
    wrong = [np.abs(b.astype(float) - x) for b in beside]
    assert (wrong[0] <= np.fmin(wrong[1], wrong[2])).all()  # NaN stands beside infinity
    tie = wrong[0] == wrong[1]
    assert (near[tie] % 2 == 0).all()


def test_float16_is_rounded_and_widened():
    x, half = np.array([1 + 2**-11, 1 + 3 * 2**-11, -7.5]), np.empty(3, np.float16)
    half[...] = x
    np.testing.assert_array_equal(wide(half), np.float32([1, 1 + 2**-9, -7.5]))
    assert wide(x) is x


# float32 to float16 and back, by the loop


def bits_around_float16():
    """Every float16, the float32 numbers beside it and beside the ties, and many others."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    steps = np.array([0, 1, -1, 0xFFF, 0x1000, 0x1001, -0xFFF, -0x1000, -0x1001], np.int32)
    beside = (every.view(np.uint32)[:, None] + steps.view(np.uint32)).ravel()
    drawn = np.random.default_rng(0).integers(0, 1 << 32, 1_000_000, np.uint32)
    return np.concatenate([beside, drawn]).view(np.float32)


def test_the_loop_rounds_to_float16_as_numpy_does():
    x = bits_around_float16()
    with using("numba"):
        found = half_precision.cast(x, np.dtype(np.float16))
    with np.errstate(all="ignore"):
        wanted = x.astype(np.float16)
    nan = np.isnan(x)
    assert np.array_equal(np.isnan(found), nan)
    assert np.array_equal(found[~nan].view(np.uint16), wanted[~nan].view(np.uint16))


def test_the_loop_reads_every_float16():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    with using("numba"):
        found = half_precision.cast(every, np.dtype(np.float32))
        strided = half_precision.cast(every.reshape(256, 256).T, np.dtype(np.float32))
    nan = np.isnan(every)
    assert np.array_equal(np.isnan(found), nan)
    assert np.array_equal(found[~nan].view("u4"), every.astype("f4")[~nan].view("u4"))
    assert np.array_equal(strided, found.reshape(256, 256).T, equal_nan=True)


# Sums of 16-bit numbers, by the loop

HALVES = pytest.mark.parametrize("dtype", [np.dtype(np.float16), BFLOAT16], ids=str)


def same_numbers(found, wanted):
    """Whether two arrays have the same bits, and NaN in the same places."""
    nan = np.isnan(wide(wanted))
    same = found.view(np.uint16) == wanted.view(np.uint16)
    return found.dtype == wanted.dtype and np.where(nan, np.isnan(wide(found)), same).all()


@HALVES
def test_the_loop_adds_every_number_to_many_as_numpy_does(dtype):
    every = np.arange(1 << 16, dtype=np.uint16).view(dtype)
    for other in np.random.default_rng(0).integers(0, 1 << 16, 60, np.uint16):
        b = np.full(1 << 16, other).view(dtype)
        with np.errstate(all="ignore"):
            wanted = np.add(every, b)
        mine = every.copy()
        with using("numba"):
            assert half_precision.add(mine, b, out=mine) is mine
        assert same_numbers(mine, wanted)


@HALVES
def test_a_sum_goes_where_it_should(dtype):
    a, b = np.random.default_rng(1).standard_normal((2, 6, 5)).astype(dtype)
    for x, y in ((a, b), (a.T, b.T), (a[:0], b[:0]), (a[0, 0], b[0, 0]), (a[::2, 1:], b[::2, 1:])):
        x, y = np.asarray(x), np.asarray(y)
        wanted, x_before, y_before = x + y, x.copy(), y.copy()
        for place in (None, "x", "y", "new", "strided", "a view of x"):
            mine, theirs = x_before.copy(), y_before.copy()
            out = {
                None: None, "x": mine, "y": theirs, "new": np.full_like(mine, 9),
                "strided": np.full((*mine.shape, 2), 9, dtype)[..., 0], "a view of x": mine[...],
            }[place]  # fmt: skip
            with using("numba"):
                found = half_precision.add(mine, theirs, out=out)
            assert out is None or found is out
            assert same_numbers(found, np.asarray(wanted))
            assert out is mine or place == "a view of x" or same_numbers(mine, x_before)
            assert out is theirs or same_numbers(theirs, y_before)
