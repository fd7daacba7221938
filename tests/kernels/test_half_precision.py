"""float16 and bfloat16: to float32 and back, and rounded to the nearest."""

import numpy as np
from hypothesis import given
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
