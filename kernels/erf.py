"""The error function by rational approximation (Cody 1969, Math. Comp. 23, 631-637), for arrays."""

import numpy as np

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


def _ratio(coefficients: tuple, x: np.ndarray) -> np.ndarray:
    return np.polyval(coefficients[0], x) / np.polyval(coefficients[1], x)


def _erfc_large(y: np.ndarray) -> np.ndarray:
    z = 1 / (y * y)
    return np.exp(-y * y) * (_ONE_OVER_SQRT_PI - z * _ratio(_LARGE, z)) / y


def erf(x: np.ndarray) -> np.ndarray:
    """erf(x), to a few units in the last place of float64; computed in float64, returned as x's."""
    y = np.abs(x, dtype=np.float64)
    inner = np.minimum(y, 0.46875)
    middle = np.clip(y, 0.46875, 4.0)
    outer = np.clip(y, 4.0, 6.0)  # beyond 6 erf is 1 to the last bit
    value = np.where(
        y <= 0.46875,
        inner * _ratio(_SMALL, inner * inner),
        1
        - np.where(y <= 4, np.exp(-middle * middle) * _ratio(_MIDDLE, middle), _erfc_large(outer)),
    )
    return np.copysign(np.where(np.isnan(y), y, value), x).astype(x.dtype, copy=False)
