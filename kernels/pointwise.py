"""Activations as formulas, each value beside its cotangent, worked out tile by tile.

A formula is written as passes over one tile; the last passes write into `out`: while the tile
is in cache a pass costs a tenth of what it costs over the whole array.
"""

from collections.abc import Callable
from typing import Any

from . import arrays as xp
from .dispatch import dispatched
from .tiles import constant, flat_tiles, without


@dispatched
def tiled(formula: Callable[..., Any], *arguments: Any) -> xp.ndarray:
    """formula(*arguments, out): arrays of one shape, worked through in tiles, then numbers.

    Temporary memory: at most three tiles of ELEMENTS.
    """
    arrays = [xp.asarray(a, order="C") for a in arguments if isinstance(a, xp.ndarray)]
    if arrays[-1].dtype.kind != "f":
        name = arrays[-1].dtype.name
        raise NotImplementedError(f"an activation of {name}: convert with .float() first")
    out, numbers = xp.empty_like(arrays[-1]), arguments[len(arrays) :]
    with xp.errstate(over="ignore"):  # exp(-x) may be infinite: 1 / (1 + it) is 0
        for *parts, part in flat_tiles(*arrays, out):
            formula(*parts, *numbers, out=part)
    return out


def relu(x, out):
    """max(x, 0)."""
    xp.maximum(x, constant(0, x), out=out)


def relu_slope(g, x, out):
    """g where x is positive or NaN, 0 elsewhere."""
    without(xp.less_equal(x, 0), g, out)


def sigmoid(x, out):
    """1 / (1 + exp(-x))."""
    xp.negative(x, out=out)
    xp.exp(out, out=out)
    out += 1
    xp.divide(1, out, out=out)


def sigmoid_slope(g, y, out):
    """g·y·(1 - y), from the sigmoid y."""
    xp.subtract(1, y, out=out)
    out *= y
    out *= g


def log1p_exp(x, out):
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)): no overflow, exact where it is tiny."""
    t = xp.abs(x)
    xp.negative(t, out=t)
    xp.exp(t, out=t)
    xp.log1p(t, out=t)
    xp.maximum(x, constant(0, x), out=out)
    out += t


def log_sigmoid(x, out):
    """-log(1 + exp(-x))."""
    log1p_exp(-x, out)
    xp.negative(out, out=out)


def log_sigmoid_slope(g, x, out):
    """g·sigmoid(-x)."""
    xp.exp(x, out=out)
    out += 1
    xp.divide(g, out, out=out)


def softplus(x, beta, threshold, out):
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above the threshold."""
    scaled = x if beta == 1 else x * beta
    log1p_exp(scaled, out)
    if beta != 1:
        out /= beta
    _above(scaled, threshold, x, out)


def softplus_slope(g, x, beta, threshold, out):
    """g·sigmoid(beta·x); g itself where beta·x is above the threshold."""
    scaled = x if beta == 1 else x * beta
    sigmoid(scaled, out)
    out *= g
    _above(scaled, threshold, g, out)


def _above(scaled, threshold, value, out):
    # Not "max > threshold": with a NaN the maximum is NaN, and NaN > threshold is false.
    if xp.on_gpu(scaled) or not scaled.max(initial=-xp.inf) <= threshold:
        xp.copyto(out, value, where=scaled > threshold)


def silu(x, out):
    """x·sigmoid(x)."""
    sigmoid(x, out)
    out *= x


def silu_slope(g, x, out):
    """g·s·(1 + x·(1 - s)), from s = sigmoid(x)."""
    s = xp.empty_like(x)
    sigmoid(x, s)
    xp.subtract(1, s, out=out)
    out *= x
    out += 1
    out *= s
    out *= g


def leaky_relu(x, slope, out):
    """x or slope·x, whichever is larger (smaller, if slope is over 1)."""
    low = x if slope else xp.minimum(x, constant(0, x))  # 0 times inf would be NaN
    xp.multiply(low, slope, out=out)
    (xp.maximum if slope <= 1 else xp.minimum)(x, out, out=out)


def leaky_relu_slope(g, x, slope, out):
    """g where x is positive, slope·g elsewhere."""
    xp.greater(x, 0, out=out)
    if 0 < slope <= 1:
        xp.maximum(out, constant(slope, x), out=out)
    elif slope:
        out *= 1 - slope
        out += slope
    out *= g


def elu(x, alpha, out):
    """x where it is positive, alpha·(exp(x) - 1) elsewhere."""
    t = xp.minimum(x, constant(0, x))
    xp.expm1(t, out=t)
    if alpha != 1:
        t *= alpha
    xp.maximum(x, constant(0, x), out=out)
    out += t


def elu_slope(g, x, alpha, out):
    """g where x is positive, alpha·exp(x)·g elsewhere."""
    xp.fmin(x, constant(0, x), out=out)  # 0 for NaN, where the slope is 1
    xp.exp(out, out=out)
    if alpha != 1:
        out *= alpha
        out += ~(x <= 0) * out.dtype.type(1 - alpha)
    out *= g


def bce_of_logits(x, t, out):
    """log(1 + exp(-|x|)) + x·((x > 0) - t): nothing cancels where t is 0 or 1."""
    xp.abs(x, out=out)
    xp.negative(out, out=out)
    xp.exp(out, out=out)
    xp.log1p(out, out=out)
    missed = xp.greater(x, 0, out=xp.empty_like(x))
    missed -= t
    missed *= x
    out += missed


def bce_of_logits_slope(g, x, t, out):
    """g·(sigmoid(x) - t), computed from (x > 0) - t and the distance of sigmoid(x) to 0 or 1."""
    e = xp.abs(x)
    xp.negative(e, out=e)
    xp.exp(e, out=e)
    xp.add(e, 1, out=out)
    e /= out  # sigmoid(-|x|)
    xp.copysign(e, x, out=e)
    xp.signbit(x, out=out)
    xp.subtract(1, out, out=out)
    out -= t
    out -= e
    out *= g


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # SELU: mean 0, variance 1


def selu(x, out):
    """SCALE·elu(x) with ALPHA (Klambauer et al. 2017)."""
    elu(x, ALPHA, out)
    out *= SCALE


def selu_slope(g, x, out):
    """SCALE·g where x is positive, SCALE·ALPHA·exp(x)·g elsewhere."""
    elu_slope(g, x, ALPHA, out)
    out *= SCALE


def mish(x, out):
    """x·tanh(log(1 + exp(x)))."""
    log1p_exp(x, out)
    xp.tanh(out, out=out)
    out *= x


def mish_slope(g, x, out):
    """g·(t + x·s·(1 - t²)), from t = tanh(log(1 + exp(x))) and s = sigmoid(x)."""
    s = xp.empty_like(x)
    sigmoid(x, s)
    s *= x
    log1p_exp(x, out)
    xp.tanh(out, out=out)
    t = xp.multiply(out, out)
    xp.subtract(1, t, out=t)
    s *= t
    out += s
    out *= g


def hard_tanh(x, low, high, out):
    """x, limited to the range from low to high."""
    xp.maximum(x, constant(low, x), out=out)
    xp.minimum(out, constant(high, x), out=out)


def hard_tanh_slope(g, x, low, high, out):
    """g strictly between low and high, 0 elsewhere; g at NaN."""
    stopped = x <= low
    stopped |= x >= high
    without(stopped, g, out)


def hard_swish(x, out):
    """x·min(max(x + 3, 0), 6) / 6."""
    xp.add(x, 3, out=out)
    xp.maximum(out, constant(0, x), out=out)
    xp.minimum(out, constant(6, x), out=out)
    out *= x
    out /= 6


def hard_swish_slope(g, x, out):
    """g·(x/3 + 1/2) between -3 and 3, 0 below, g above and at NaN."""
    xp.fmin(x, constant(3, x), out=out)  # 3 for NaN too
    xp.fmax(out, constant(-3, x), out=out)
    out /= 3
    out += 0.5
    out -= xp.multiply(~(x < 3), out.dtype.type(0.5))  # 3/3 + 1/2 is 1
    out *= g
    without(x <= -3, out, out)


# The formulas as they are written, one temporary an operation


def _naive_sigmoid(x):
    return 1 / (1 + xp.exp(-x))


def _naive_silu_slope(g, x):
    s = _naive_sigmoid(x)
    return g * s * (1 + x * (1 - s))


def _naive_softplus(x, beta, threshold):
    return xp.where(x * beta > threshold, x, xp.logaddexp(0, x * beta) / beta)


def _naive_softplus_slope(g, x, beta, threshold):
    return xp.where(x * beta > threshold, g, g * _naive_sigmoid(x * beta))


def _naive_mish(x):
    return x * xp.tanh(xp.logaddexp(0, x))


def _naive_mish_slope(g, x):
    t = xp.tanh(xp.logaddexp(0, x))
    return g * (t + x * _naive_sigmoid(x) * (1 - t * t))


def _naive_hard_swish_slope(g, x):
    return g * xp.where(x < 3, xp.where(x > -3, x / 3 + 0.5, 0), 1)


NAIVE: dict[Any, Callable[..., xp.ndarray]] = {
    relu: lambda x: xp.maximum(x, 0),
    relu_slope: lambda g, x: xp.where(x <= 0, 0, g),
    sigmoid: _naive_sigmoid,
    sigmoid_slope: lambda g, y: g * y * (1 - y),
    selu: lambda x: SCALE * xp.where(x > 0, x, ALPHA * xp.expm1(x)),
    selu_slope: lambda g, x: SCALE * xp.where(x <= 0, g * ALPHA * xp.exp(x), g),
    mish: _naive_mish,
    mish_slope: _naive_mish_slope,
    hard_tanh: lambda x, low, high: xp.minimum(xp.maximum(x, low), high),
    hard_tanh_slope: lambda g, x, low, high: xp.where((x <= low) | (x >= high), 0, g),
    hard_swish: lambda x: x * xp.minimum(xp.maximum(x + 3, 0), 6) / 6,
    hard_swish_slope: _naive_hard_swish_slope,
    log_sigmoid: lambda x: -xp.logaddexp(0, -x),
    log_sigmoid_slope: lambda g, x: g * _naive_sigmoid(-x),
    softplus: _naive_softplus,
    softplus_slope: _naive_softplus_slope,
    silu: lambda x: x * _naive_sigmoid(x),
    silu_slope: _naive_silu_slope,
    leaky_relu: lambda x, slope: xp.where(x > 0, x, x * slope),
    leaky_relu_slope: lambda g, x, slope: xp.where(x > 0, g, g * slope),
    bce_of_logits: lambda x, t: xp.maximum(x, 0) - x * t + xp.log1p(xp.exp(-xp.abs(x))),
    bce_of_logits_slope: lambda g, x, t: g * (_naive_sigmoid(x) - t),
    elu: lambda x, alpha: xp.where(x > 0, x, alpha * xp.expm1(x)),
    elu_slope: lambda g, x, alpha: xp.where(x <= 0, g * alpha * xp.exp(x), g),
}


@tiled.version("naive")
def _naively(formula, *arguments):
    with xp.errstate(over="ignore"):
        if formula in NAIVE:
            return NAIVE[formula](*arguments)
        return formula(*arguments, out=xp.empty_like(arguments[0]))
