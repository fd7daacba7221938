"""exp, log, tanh, erf of arrays, with the slopes of two.

The ladder, n numbers of b bytes:

- formula: NumPy's own function, or several passes over memory (erf: 12).
- loop: elementary.py's function of one number: it reads each number once, writes one, 2nb bytes.
- tile program: the same function of a block, made from its text (each_triton.py), the same bytes.
"""

from __future__ import annotations

import math

from . import arrays as xp
from . import elementary
from .each import each
from .elementary import exp as exp_of


@each
def exp(x):
    """eˣ."""
    return xp.exp(x)


@each
def expm1(x):
    """eˣ - 1."""
    return xp.expm1(x)


@each
def log(x):
    """The natural logarithm."""
    return xp.log(x)


@each
def log1p(x):
    """log(1 + x)."""
    return xp.log1p(x)


@each
def tanh(x):
    """The hyperbolic tangent."""
    return xp.tanh(x)


@each
def erf(x):
    """The error function, in float64 to a few units in the last place (Cody 1969)."""
    return _cody(x.astype(xp.float64)).astype(x.dtype)


exp.of(elementary.exp)
expm1.of(elementary.expm1)
log.of(elementary.log)
log1p.of(elementary.log1p)
tanh.of(elementary.tanh)
erf.of(elementary.erf)


@each
def tanh_slope(g, y):
    """g·(1 - y²), from the tanh y."""
    return g * (1 - y * y)


@tanh_slope.of
def tanh_slope_of(g, y):
    return g * (1.0 - y * y)


@each
def erf_slope(g, x):
    """g·2/√π·exp(-x²)."""
    return g * xp.exp(-x * x) * (2 / math.sqrt(math.pi))


@erf_slope.of
def erf_slope_of(g, x):
    return g * (exp_of(-x * x) * 1.1283791670955126)


# erf without a library: Math. Comp. 23, 631-637

# Numerator and denominator, highest power first, for |x| <= 0.46875, <= 4, and beyond.
_SMALL = (
    (1.85777706184603153e-1, 3.16112374387056560, 1.13864154151050156e2, 3.77485237685302021e2,
     3.20937758913846947e3),
    (1.0, 2.36012909523441209e1, 2.44024637934444173e2, 1.28261652607737228e3,
     2.84423683343917062e3),
)  # fmt: skip
_MIDDLE = (
    (2.15311535474403846e-8, 5.64188496988670089e-1, 8.88314979438837594, 6.61191906371416295e1,
     2.98635138197400131e2, 8.81952221241769090e2, 1.71204761263407058e3, 2.05107837782607147e3,
     1.23033935479799725e3),
    (1.0, 1.57449261107098347e1, 1.17693950891312499e2, 5.37181101862009858e2,
     1.62138957456669019e3, 3.29079923573345963e3, 4.36261909014324716e3, 3.43936767414372164e3,
     1.23033935480374942e3),
)  # fmt: skip
_LARGE = (
    (1.63153871373020978e-2, 3.05326634961232344e-1, 3.60344899949804439e-1,
     1.25781726111229246e-1, 1.60837851487422766e-2, 6.58749161529837803e-4),
    (1.0, 2.56852019228982242, 1.87295284992346725, 5.27905102951428412e-1,
     6.05183413124413191e-2, 2.33520497626869185e-3),
)  # fmt: skip
_ONE_OVER_SQRT_PI = 5.6418958354775628695e-1


def _ratio(coefficients: tuple, x: xp.ndarray) -> xp.ndarray:
    return xp.polyval(coefficients[0], x) / xp.polyval(coefficients[1], x)


def _erfc_large(y: xp.ndarray) -> xp.ndarray:
    z = 1 / (y * y)
    return xp.exp(-y * y) * (_ONE_OVER_SQRT_PI - z * _ratio(_LARGE, z)) / y


def _cody(x: xp.ndarray) -> xp.ndarray:
    y = xp.abs(x)
    inner = xp.minimum(y, 0.46875)
    middle = xp.clip(y, 0.46875, 4.0)
    outer = xp.clip(y, 4.0, 6.0)  # beyond 6 erf is 1 to the last bit
    value = xp.where(
        y <= 0.46875,
        inner * _ratio(_SMALL, inner * inner),
        1
        - xp.where(y <= 4, xp.exp(-middle * middle) * _ratio(_MIDDLE, middle), _erfc_large(outer)),
    )
    return xp.copysign(xp.where(xp.isnan(y), y, value), x)
