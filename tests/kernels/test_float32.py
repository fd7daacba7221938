"""The loops in float32 against the formulas in float64: within the bound that is stated here.

An error is in units of float32's last place (2⁻²³), of the largest number of an array or of 1. Each
bound is about twice the largest error over 60 drawn cases, for processors add rows in other orders.
A family without a bound fails, and so does a bound six times as wide as what its family needs.
"""

import numpy as np
import pytest
from minidist.kernels.dispatch import using
from support.kernel_cases import CASES, Draw

ULP = 2.0**-23
BOUND = {
    "activations": 12,  # softplus and log-sigmoid of numbers near their knee
    "functions": 2.5,
    "gelu": 6,
    "swiglu": 2,
    "softmax": 24,  # backward of the logarithm: g - exp(y) · Σ g, a difference of large numbers
    "norms": 7,
    "batch_norm": 4,
    "group_norm": 5,
    "losses": 7,
    "huber": 1.5,
    "ctc": 56,  # a sum over time of logarithms of sums
    "embedding": 1.5,
    "linear": 2,
    "matmul": 3,
    "conv": 5,
    "winograd": 6,  # sums and differences before and after the products
    "pool": 2.5,
    "resample": 4,
    "lstm": 3.5,
    "gru": 6,
    "attention": 18,  # slopes are p · (dp - Σ dp · p), differences again
    "rotary": 2,
    "dropout": 1.5,
    "optimizers": 2.5,
    "vector_norm": 1,  # summed in float64
}


def run(name, version, seed, dtype):
    with using(version):
        return [np.copy(y) for y in CASES[name](Draw(seed, dtype, rounded=True))]


def error(name, seed, dtype=np.float32):
    """The largest error of a case, in units of the last place."""
    worst, wanted = 0.0, run(name, "naive", seed, np.float64)
    for a, b in zip(run(name, "numba", seed, dtype), wanted, strict=True):
        assert a.shape == b.shape and np.array_equal(np.isneginf(a), np.isneginf(b))
        a, b = (np.where(np.isneginf(x), 0, x).astype(float) for x in (a, b))
        worst = max(worst, np.abs(a - b).max(initial=0) / max(1, np.abs(b).max(initial=0)) / ULP)
    return worst


def test_every_family_has_a_bound():
    assert set(BOUND) == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_float32_is_within_its_bound(name):
    worst = max(error(name, seed) for seed in range(60))
    assert worst <= BOUND[name]
    assert name == "vector_norm" or BOUND[name] < 6 * worst, f"{name} needs {worst:.2g} only"


@pytest.mark.parametrize("name", ["softmax", "norms", "losses", "attention"])
def test_numbers_that_are_off_by_40_ulp_are_seen(name, monkeypatch):
    """The control: what the loops are given is wrong in its last six bits."""
    normal = Draw.normal

    def off(draw, *shape):
        factor = 1 + 40 * ULP * (draw.dtype == np.float32)
        return (normal(draw, *shape) * factor).astype(draw.dtype)

    monkeypatch.setattr(Draw, "normal", off)
    assert max(error(name, seed) for seed in range(20)) > BOUND[name]
