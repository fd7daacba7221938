"""bfloat16 in uint16 arrays: there and back, and rounded to the nearest."""

import numpy as np
from hypothesis import given
from support.cases import SEEDS

from minidist.kernels.halves import store, wide


def test_bfloat16_and_back():
    bits = np.arange(1 << 16, dtype=np.uint16)
    numbers, back = wide(bits), np.empty_like(bits)
    store(numbers, back)
    real = ~np.isnan(numbers)
    np.testing.assert_array_equal(back[real], bits[real])
    assert np.isnan(wide(back[~real])).all()


@given(seed=SEEDS)
def test_bfloat16_is_the_nearest(seed):
    x = np.random.default_rng(seed).integers(0, 0x7F7F8000, 999, np.uint32).view(np.float32)
    near = np.empty(x.shape, np.uint16)
    store(x, near)
    wrong = [np.abs(wide(near + np.uint16(i)).astype(float) - x) for i in (0, 1, 2**16 - 1)]
    assert (wrong[0] <= np.fmin(wrong[1], wrong[2])).all()  # NaN stands beside infinity
    tie = wrong[0] == wrong[1]
    assert (near[tie] % 2 == 0).all()


def test_float16_is_rounded_and_widened():
    x, half = np.array([1 + 2**-11, 1 + 3 * 2**-11, -7.5]), np.empty(3, np.float16)
    store(x, half)
    np.testing.assert_array_equal(wide(half), np.float32([1, 1 + 2**-9, -7.5]))
    assert wide(x) is x
