"""Functions of one number in loops: errors in ulp over the whole range of float32, and its ends.

A unit in the last place (ulp) is the distance between two float32 at the result; below the least
normal number it is the least subnormal one.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from minidist.kernels import elementary, functions, loops
from minidist.kernels.each import loop_of
from minidist.kernels.loops import F, Helper, Out, helper, loop

pytest.importorskip("numba", reason="without Numba there are no loops")

# The bounds that docstrings and docs/kernels.md state
ULPS = {"exp": 1.1, "expm1": 1.6, "log": 1.0, "log1p": 1.6, "tanh": 1.5, "sigmoid": 2.5, "erf": 4.0}
LEAST = np.float32(2**-149)


def sigmoid(x):
    e = np.exp(-np.abs(x))
    return np.where(x < 0, e, 1) / (1 + e)


REFERENCE = {name: getattr(np, name, None) for name in ULPS} | {
    "sigmoid": sigmoid, "erf": functions.erf.formula,
}  # fmt: skip


def of(function: Helper, x: np.ndarray) -> np.ndarray:
    """The function of every element, by a loop."""
    y = np.full_like(x, 7)
    loop_of(function)(x, y)
    return y


def everywhere(step: int) -> np.ndarray:
    """Every so manieth float32: of all exponents and signs, subnormal, infinite and NaN."""
    return np.arange(0, 2**32, step, np.int64).astype(np.uint32).view(np.float32)


# Where polynomials, branches and ranges meet, on both sides, and where results end
EDGES = [
    0, 1e-45, 1e-38, 1.1754944e-38, 5.9e-8, 2**-24, 0.346574, 0.5, 0.625, 0.7071, 1, 1.4142, 1.0397,
    2.77, 4.123, 9.01, 15, 17.33, 18, 44.36, 87, 87.34, 88, 88.72, 88.73, 89, 103.2, 103.97, 104,
    1e10, 3e38, np.inf, np.nan,
]  # fmt: skip


def inputs(step: int = 4099) -> np.ndarray:
    """A million numbers, and the neighbourhood of edges."""
    near = np.array(EDGES, np.float32)
    near = np.concatenate([near, np.nextafter(near, 0), np.nextafter(near, np.float32(np.inf))])
    return np.concatenate([everywhere(step), near, -near])


def ulps(y: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The errors in ulp where `wanted` (float64) is a finite float32."""
    with np.errstate(over="ignore", under="ignore"):
        rounded = wanted.astype(np.float32)
    finite = np.isfinite(rounded)
    ulp = np.spacing(np.abs(rounded[finite])).astype(np.float64)
    return np.abs(y[finite].astype(np.float64) - wanted[finite]) / ulp


def check(name: str, function: Helper) -> None:
    x = inputs()
    y = of(function, x)
    with np.errstate(all="ignore"):
        wanted = REFERENCE[name](x.astype(np.float64))
        rounded = wanted.astype(np.float32)
    assert np.array_equal(np.isnan(y), np.isnan(rounded))
    infinite = np.isinf(rounded) | np.isinf(y)
    assert np.array_equal(y[infinite], rounded[infinite])
    zero = rounded == 0
    assert np.array_equal(np.signbit(y[zero]), np.signbit(rounded[zero]))
    assert ulps(y, wanted).max() <= ULPS[name]


@pytest.mark.parametrize("name", ULPS)
def test_errors_over_the_whole_range(name):
    check(name, getattr(elementary, name))


@pytest.mark.parametrize("name", ULPS)
def test_the_bounds_are_near_what_is_reached(name):
    """A bound that is twice as large as needed would not see a function that became worse."""
    x = inputs()
    with np.errstate(all="ignore"):
        wanted = REFERENCE[name](x.astype(np.float64))
    assert ulps(of(getattr(elementary, name), x), wanted).max() > ULPS[name] / 1.5


@helper()
def slightly_off(x):
    """exp, with the last coefficient but one of its polynomial changed in the sixth digit."""
    n = elementary_fma(x, 1.4426950408889634, 12582912.0) - 12582912.0
    r = elementary_fma(n, -0.693359375, x)
    r = elementary_fma(n, 2.12194440e-4, r)
    p = elementary_fma(4.1665795894e-2, r, 1.66666e-1)
    p = elementary_fma(p, r, 5.0000001201e-1)
    p = elementary_fma(p * r, r, r) + 1.0
    return p * power_of_two(n)


elementary_fma, power_of_two = elementary.fma, elementary.power_of_two


def test_a_shorter_polynomial_is_seen():
    x = np.linspace(-80, 80, 10_001, dtype=np.float32)
    wanted = np.exp(x.astype(np.float64))
    assert ulps(of(slightly_off, x), wanted).max() > ULPS["exp"]
    assert ulps(of(elementary.exp, x), wanted).max() <= ULPS["exp"]


@helper()
def careless_log1p(x):
    return careless(1.0 + x)


careless = elementary.log


def test_a_logarithm_of_a_rounded_sum_is_seen():
    with pytest.raises(AssertionError):
        check("log1p", careless_log1p)


@loop
def normal_each(x: F[::1], below: Out[::1], density: Out[::1]):
    for i in range(len(x)):
        below[i], density[i] = normal_of(x[i])


normal_of = elementary.normal


def test_the_normal_distribution():
    """Its small values keep their digits, as those of an erf that is subtracted from 1 do not."""
    x = inputs(2**17 + 3)
    below, density = np.empty_like(x), np.empty_like(x)
    normal_each(x, below, density)
    phi = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])
    normal = np.isnan(phi) | (phi >= 1.2e-38)
    assert np.array_equal(np.isnan(below), np.isnan(x)) and np.array_equal(
        np.isnan(density), np.isnan(x)
    )
    assert np.nanmax(ulps(below[normal], phi[normal])) <= 9
    assert np.nanmax(np.abs(below - phi)) < 2.2e-7
    with np.errstate(all="ignore"):  # a NaN may be a signalling one
        wanted = np.exp(-0.5 * x.astype(np.float64) ** 2) / math.sqrt(2 * math.pi)
    assert np.nanmax(np.abs(density - wanted)) < 1e-7
    x = np.linspace(-10, -3, 100, dtype=np.float32)
    by_erf = 0.5 + 0.5 * of(elementary.erf, x * np.float32(math.sqrt(0.5)))
    assert (
        ulps(by_erf, np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x.tolist()])).max() > 1e6
    )


@pytest.mark.parametrize("name", ULPS)
def test_float64_is_the_c_library_s(name):
    x = np.concatenate([np.linspace(-30, 30, 4001), [0.0, -0.0, np.inf, -np.inf, np.nan, 700, 800]])
    y = of(getattr(elementary, name), x)
    with np.errstate(all="ignore"):
        np.testing.assert_allclose(y, REFERENCE[name](x), rtol=4e-15)


@pytest.mark.parametrize("name", [*ULPS, "normal"])
def test_machine_code_has_vectors_of_float32_and_no_float64(name):
    """A float64 in between would halve the speed, a call of the C library divide it by ten."""
    made = normal_each if name == "normal" else loop_of(getattr(elementary, name))
    single = np.dtype("float32")
    run = loops._jit(loops._typed(made.function, single), False)
    run.compile(loops._signature(made.function, single))
    text = "".join(run.inspect_llvm().values())
    assert "x float>" in text and "double" not in text


@pytest.mark.parametrize("name", ULPS)
def test_an_element_does_not_depend_on_the_others(name):
    """Vectors of several numbers and what is left over run other instructions."""
    x = np.random.default_rng(0).standard_normal(67).astype(np.float32) * 3
    whole = of(getattr(elementary, name), x)
    for start, stop in ((0, 0), (0, 1), (3, 10), (1, 67), (60, 67)):
        part = of(getattr(elementary, name), x[start:stop].copy())
        assert part.tobytes() == whole[start:stop].tobytes()
