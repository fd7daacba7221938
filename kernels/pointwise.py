"""Activations, each value beside its slope: the formula of arrays, then the same of one number.

`relu_slope(g, x)` is g times the slope of relu at x; a slope that follows from the result y takes y
in place of x. The ladder is in each.py, with the loop and the tile program, which are made from the
function of one number.
"""

from __future__ import annotations

import math

from . import arrays as xp
from .each import each
from .elementary import exp, expm1, fma
from .elementary import sigmoid as sigmoid_of
from .loops import helper


@each
def relu(x):
    """max(x, 0)."""
    return xp.maximum(x, 0)


@relu.of
def relu_of(x):
    return 0.0 if x <= 0.0 else x  # NaN stays


@each
def relu_slope(g, x):
    """g where x is positive or NaN, 0 elsewhere."""
    return xp.where(x <= 0, 0, g)


@relu_slope.of
def relu_slope_of(g, x):
    return 0.0 if x <= 0.0 else g


@each
def sigmoid(x):
    """1 / (1 + exp(-x))."""
    return 1 / (1 + xp.exp(-x))


sigmoid.of(sigmoid_of)


@each
def sigmoid_slope(g, y):
    """g·y·(1 - y), from the sigmoid y."""
    return g * y * (1 - y)


@sigmoid_slope.of
def sigmoid_slope_of(g, y):
    return g * y * (1.0 - y)


@helper(double=math.log1p)
def log1p_to_1(e):
    """log(1 + e) for 0 ≤ e ≤ 1, as 2 artanh(s) with s = e / (2 + e) ≤ 1/3: no case differs."""
    s = e / (2.0 + e)
    z = s * s
    p = fma(0.07692307692307693, z, 0.09090909090909091)  # 1/13, 1/11, …
    p = fma(p, z, 0.1111111111111111)
    p = fma(p, z, 0.14285714285714285)
    p = fma(p, z, 0.2)
    p = fma(p, z, 0.3333333333333333)
    return 2.0 * fma(p * z, s, s)


@helper()
def log1p_exp(x):
    """log(1 + exp(x)) as max(x, 0) + log1p(exp(-|x|)): no overflow, exact where it is tiny."""
    return (x if x > 0.0 else 0.0) + log1p_to_1(exp(-abs(x)))


@each
def log_sigmoid(x):
    """-log(1 + exp(-x))."""
    return -xp.logaddexp(0, -x)


@log_sigmoid.of
def log_sigmoid_of(x):
    return -log1p_exp(-x)


@each
def log_sigmoid_slope(g, x):
    """g·sigmoid(-x)."""
    return g / (1 + xp.exp(x))


@log_sigmoid_slope.of
def log_sigmoid_slope_of(g, x):
    return g * sigmoid_of(-x)


@each
def softplus(x, beta, threshold):
    """log(1 + exp(beta·x)) / beta; x itself where beta·x is above the threshold."""
    return xp.where(x * beta > threshold, x, xp.logaddexp(0, x * beta) / beta)


@softplus.of
def softplus_of(x, beta: float, threshold: float):
    y = log1p_exp(x * beta) / beta
    return x if x * beta > threshold else y


@each
def softplus_slope(g, x, beta, threshold):
    """g·sigmoid(beta·x); g itself where beta·x is above the threshold."""
    return xp.where(x * beta > threshold, g, g / (1 + xp.exp(-x * beta)))


@softplus_slope.of
def softplus_slope_of(g, x, beta: float, threshold: float):
    return g if x * beta > threshold else g * sigmoid_of(x * beta)


@each
def silu(x):
    """x·sigmoid(x)."""
    return x / (1 + xp.exp(-x))


@silu.of
def silu_of(x):
    return x * sigmoid_of(x)


@each
def silu_slope(g, x):
    """g·s·(1 + x·(1 - s)), from s = sigmoid(x)."""
    s = 1 / (1 + xp.exp(-x))
    return g * s * (1 + x * (1 - s))


@silu_slope.of
def silu_slope_of(g, x):
    s = sigmoid_of(x)
    return g * s * (1.0 + x * (1.0 - s))


@each
def leaky_relu(x, slope):
    """x where it is positive, slope·x elsewhere."""
    return xp.where(x > 0, x, x * slope)


@leaky_relu.of
def leaky_relu_of(x, slope: float):
    return x if x > 0.0 else x * slope


@each
def leaky_relu_slope(g, x, slope):
    """g where x is positive, slope·g elsewhere."""
    return xp.where(x > 0, g, g * slope)


@leaky_relu_slope.of
def leaky_relu_slope_of(g, x, slope: float):
    return g if x > 0.0 else g * slope


@each
def elu(x, alpha):
    """x where it is positive, alpha·(exp(x) - 1) elsewhere."""
    return xp.where(x > 0, x, alpha * xp.expm1(x))


@elu.of
def elu_of(x, alpha: float):
    return x if x > 0.0 else alpha * expm1(x)


@each
def elu_slope(g, x, alpha):
    """g where x is positive, alpha·exp(x)·g elsewhere; g at NaN."""
    return xp.where(x <= 0, g * alpha * xp.exp(x), g)


@elu_slope.of
def elu_slope_of(g, x, alpha: float):
    return g * alpha * exp(x) if x <= 0.0 else g


ALPHA, SCALE = 1.6732632423543772, 1.0507009873554805  # SELU: mean 0, variance 1


@each
def selu(x):
    """SCALE·elu(x) with ALPHA (Klambauer et al. 2017)."""
    return SCALE * xp.where(x > 0, x, ALPHA * xp.expm1(x))


@selu.of
def selu_of(x):
    return SCALE * (x if x > 0.0 else ALPHA * expm1(x))


@each
def selu_slope(g, x):
    """SCALE·g where x is positive, SCALE·ALPHA·exp(x)·g elsewhere."""
    return SCALE * xp.where(x <= 0, g * ALPHA * xp.exp(x), g)


@selu_slope.of
def selu_slope_of(g, x):
    return SCALE * (g * ALPHA * exp(x) if x <= 0.0 else g)


@each
def mish(x):
    """x·tanh(log(1 + exp(x)))."""
    return x * xp.tanh(xp.logaddexp(0, x))


@helper()
def tanh_log1p_exp(x):
    """tanh(log(1 + exp(x))) = (u² - 1) / (u² + 1) with u = 1 + exp(x), by one exponential.

    exp(-|x|) does not overflow: for x > 0 both terms are divided by exp(x)².
    """
    e = exp(-abs(x))
    top = 1.0 + 2.0 * e if x > 0.0 else e * (e + 2.0)
    return top / (top + 2.0 * (e * e if x > 0.0 else 1.0))


@mish.of
def mish_of(x):
    return x * tanh_log1p_exp(x)


@each
def mish_slope(g, x):
    """g·(t + x·s·(1 - t²)), from t = tanh(log(1 + exp(x))) and s = sigmoid(x)."""
    t = xp.tanh(xp.logaddexp(0, x))
    return g * (t + x / (1 + xp.exp(-x)) * (1 - t * t))


@mish_slope.of
def mish_slope_of(g, x):
    t = tanh_log1p_exp(x)
    return g * (t + x * sigmoid_of(x) * (1.0 - t * t))


@each
def hard_tanh(x, low, high):
    """x, limited to the range from low to high."""
    return xp.minimum(xp.maximum(x, low), high)


@hard_tanh.of
def hard_tanh_of(x, low: float, high: float):
    x = low if x < low else x
    return high if x > high else x


@each
def hard_tanh_slope(g, x, low, high):
    """g strictly between low and high, 0 elsewhere; g at NaN."""
    return xp.where((x <= low) | (x >= high), 0, g)


@hard_tanh_slope.of
def hard_tanh_slope_of(g, x, low: float, high: float):
    g = 0.0 if x <= low else g
    return 0.0 if x >= high else g


@each
def hard_swish(x):
    """x·min(max(x + 3, 0), 6) / 6."""
    return x * xp.minimum(xp.maximum(x + 3, 0), 6) / 6


@hard_swish.of
def hard_swish_of(x):
    return x * hard_tanh_of(x + 3.0, 0.0, 6.0) / 6.0


@each
def hard_swish_slope(g, x):
    """g·(x/3 + 1/2) between -3 and 3, 0 below, g above and at NaN."""
    return xp.where(x <= -3, 0, xp.where(x < 3, g * (x / 3 + 0.5), g))


@hard_swish_slope.of
def hard_swish_slope_of(g, x):
    g = g * (x / 3.0 + 0.5) if x < 3.0 else g
    return 0.0 if x <= -3.0 else g


@each
def bce_of_logits(x, t):
    """log(1 + exp(x)) - x·t."""
    return xp.logaddexp(0, x) - x * t


@bce_of_logits.of
def bce_of_logits_of(x, t):
    """log(1 + exp(-|x|)) + x·((x > 0) - t): nothing cancels where t is 0 or 1."""
    return log1p_to_1(exp(-abs(x))) + x * ((1.0 if x > 0.0 else 0.0) - t)


@each
def bce_of_logits_slope(g, x, t):
    """g·(sigmoid(x) - t)."""
    return g * (1 / (1 + xp.exp(-x)) - t)


@bce_of_logits_slope.of
def bce_of_logits_slope_of(g, x, t):
    """g·((x > 0) - t ± sigmoid(-|x|)): the distance to t keeps its digits where t is 0 or 1."""
    far = sigmoid_of(-abs(x))
    return g * ((1.0 - t) - far if x > 0.0 else far - t)
