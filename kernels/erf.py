"""The error function of arrays: float64 by Cody (1969, Math. Comp. 23, 631-637), less by tanh."""

from . import arrays as xp
from .dispatch import dispatched
from .tiles import constant

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
# erf(x) = tanh(x · p(x²)): p fitted (weighted minimax, |x| <= 4, 1e-7), lowest power first; beyond
# x² = FAR, where p grows, tanh(x · p(FAR)) is 1 to the last bit.
FAR = 17.0
_TANH = (
    1.1283792743186163, 0.10276905569172663, -1.9183059732144885e-4, -6.197848173121604e-4,
    8.763738079600779e-5, -5.6684834535980985e-6, 1.4185262839181668e-7,
)  # fmt: skip


def _ratio(coefficients: tuple, x: xp.ndarray) -> xp.ndarray:
    return xp.polyval(coefficients[0], x) / xp.polyval(coefficients[1], x)


def _erfc_large(y: xp.ndarray) -> xp.ndarray:
    z = 1 / (y * y)
    return xp.exp(-y * y) * (_ONE_OVER_SQRT_PI - z * _ratio(_LARGE, z)) / y


@dispatched
def erf(x: xp.ndarray, out: xp.ndarray | None = None, scale: float = 1.0) -> xp.ndarray:
    """erf(scale · x): float64 to a few units in the last place, float32 to 4e-7 of the value;
    lesser dtypes as float32, rounded.

    Temporary memory: two arrays like x; for float64, of which all branches are worked out, 12.
    """
    out = xp.empty_like(x) if out is None else out
    if x.dtype == xp.float32:
        _by_tanh(x, out, scale)
    elif x.dtype == xp.float64:
        out[...] = _cody(x if scale == 1 else x * scale)
    else:
        out[...] = erf(x.astype(xp.float32), None, scale)
    return out


@erf.version("naive")
def naive(x, out=None, scale=1.0):
    """float64's for every dtype."""
    out = xp.empty_like(x) if out is None else out
    out[...] = _cody(x.astype(xp.float64) * scale)
    return out


def _by_tanh(x: xp.ndarray, out: xp.ndarray, scale: float) -> None:
    first, *middle, last = (c * scale ** (2 * i + 1) for i, c in enumerate(_TANH))
    z = xp.empty_like(x)
    with xp.errstate(over="ignore"):
        xp.multiply(x, x, out=z)
    xp.minimum(z, constant(FAR / scale**2, z), out=z)
    xp.multiply(z, last, out=out)
    for coefficient in reversed(middle):
        out += coefficient
        out *= z
    out += first
    out *= x
    xp.tanh(out, out=out)


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
