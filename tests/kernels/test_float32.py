"""The loops in float32 against the formulas in float64: within the bound that is stated here.

The bound of a family is in units of float32's last place (2⁻²³), of the largest number of an array
or of 1. A family without a bound fails, and so does one whose bound is four times as wide as what
it needs.
"""

import numpy as np
import pytest
from minidist.kernels.dispatch import using
from support.kernel_cases import CASES, Draw

ULP = 2.0**-23
BOUND = {
    "activations": 4,
    "gelu": 4,
}


def run(name, version, seed, dtype):
    with using(version):
        return [np.copy(y) for y in CASES[name](Draw(seed, dtype, rounded=True))]


def error(name, seed):
    """The largest error of a case, in units of the last place."""
    pairs = zip(run(name, "numba", seed, np.float32), run(name, "naive", seed, np.float64))
    worst = 0.0
    for a, b in pairs:
        assert a.shape == b.shape and np.array_equal(np.isneginf(a), np.isneginf(b))
        a, b = (np.where(np.isneginf(x), 0, x).astype(float) for x in (a, b))
        worst = max(worst, np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0)) / ULP)
    return worst


@pytest.mark.parametrize("name", CASES)
def test_float32_is_within_its_bound(name):
    print(name, max(error(name, seed) for seed in range(60)))
