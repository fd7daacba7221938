"""Elementwise operations: each value beside its VJPs."""

import functools
import math

from ..kernels import arrays as xp
from ..kernels import functions, half_precision
from ..kernels import gelu as gelu_kernel
from ..tensor.device import want_one_place
from ..tensor.dtypes import DEFAULT, bool_, finfo, fitting, int64, is_floating, want_fit
from ..tensor.tensor import Tensor
from .op import (
    differentiable,
    elementwise,
    is_integer,
    want_floating,
    want_numbers_fit,
    want_one_dtype,
    want_served,
    want_tensors,
    want_whole,
    wrapped,
)  # fmt: skip


def of_floats(**precision):
    """As elementwise, for what has no integer results: integers and bools become float32."""

    def decorate(function):
        @functools.wraps(function)
        def of_cast(*operands):
            integers = (isinstance(a, xp.ndarray) and not is_floating(a) for a in operands)
            return function(*(a.astype(DEFAULT) if i else a for i, a in zip(integers, operands)))

        return elementwise(**{"numbers": "stay"} | precision)(of_cast)

    return decorate


def _named(name, autocast, function, decorator=elementwise, **precision):
    function.__name__ = name
    return decorator(autocast=autocast, **precision)(function)


# Functions of two arguments


@elementwise(autocast="fallthrough")
def _add(a, b):
    return a + b, lambda g: g, lambda g: g


@elementwise(autocast="fallthrough")
def _sub(a, b):
    return a - b, lambda g: g, lambda g: -g


@elementwise(autocast="fallthrough")
def mul(a, b):
    return a * b, lambda g: g * b, lambda g: g * a


@elementwise(autocast="fallthrough")
def _add_scaled(a, b, *, alpha):
    if isinstance(alpha, float) and xp.result_type(a, b).kind in "iub":
        raise TypeError(f"alpha {alpha} of integers: want an integer, or convert with .float()")
    dtype = xp.result_type(a, b)
    return a + wrapped(wrapped(alpha, dtype) * b, dtype), lambda g: g, lambda g: g * alpha


def add(input, other, *, alpha=1):
    """input + alpha·other, rounded once; alpha is a number."""
    return _add(input, other) if alpha == 1 else _add_scaled(input, other, alpha=alpha)


def sub(input, other, *, alpha=1):
    """input - alpha·other, rounded once; alpha is a number."""
    return _sub(input, other) if alpha == 1 else _add_scaled(input, other, alpha=-alpha)


@of_floats(autocast="fallthrough")
def _div(a, b):
    y = a / b
    return y, lambda g: g / b, lambda g: -g * y / b


def div(input, other, *, rounding_mode=None):
    """input / other; with rounding_mode, rounded down ("floor") or towards 0 ("trunc")."""
    if rounding_mode is None:
        return _div(input, other)
    if rounding_mode not in ("floor", "trunc"):
        raise RuntimeError(f"div: rounding_mode is None, 'trunc' or 'floor', not {rounding_mode!r}")
    return (floor_divide if rounding_mode == "floor" else _div_trunc)(input, other)


def _no_bools(name, *operands):
    """The first operand, unless all are bools."""
    if all(isinstance(a, bool) or getattr(a, "dtype", DEFAULT).kind == "b" for a in operands):
        raise NotImplementedError(f"{name} of bool: convert with .long() first")
    return operands[0]


def _whole(function, a, b):
    _no_bools(function.__name__, a, b)
    if xp.result_type(a, b).kind != "f" and not xp.on_gpu(b) and not xp.all(b):
        raise ValueError("an integer divided by zero")
    return function(a, b)


def _divide_towards_0(a, b):
    if xp.result_type(a, b).kind == "f":
        return xp.trunc(a / b)
    y = xp.floor_divide(a, b)
    return y + ((y < 0) & (y * b != a))  # negative results were rounded down: add 1


@elementwise(autocast="fallthrough")
def _div_trunc(a, b):
    return _whole(_divide_towards_0, a, b), xp.zeros_like, xp.zeros_like


@elementwise(autocast="fallthrough")
def floor_divide(a, b):
    return _whole(xp.floor_divide, a, b), xp.zeros_like, xp.zeros_like


@elementwise(autocast="fallthrough")
def remainder(a, b):
    return _whole(xp.remainder, a, b), lambda g: g, lambda g: -g * (a // b)


@elementwise(autocast="fp32")
def _pow(a, b):
    cube = type(b) in (int, float) and b == 3
    if isinstance(b, xp.ndarray) and b.dtype.kind not in "fc":
        _no_bools("pow", a, b)
        return (_whole_power(a, b),)
    y = a * a * a if cube else a**b  # NumPy is quick for squares alone

    def by_base(g):
        slope = g * b * a ** (b - 1 + (b == 0))  # x⁰ is constant, also at 0: not 0 · 0⁻¹
        return slope if isinstance(b, int | float) and b else xp.where(b == 0, 0, slope)

    def by_exponent(g):  # 0ᵇ is constant for b > 0, and infinitely steep for b < 0
        flat = (a == 0) & (b >= 0)
        with xp.errstate(divide="ignore"):
            return xp.where(flat, 0, g * y * xp.log(xp.where(flat, 1, a)))

    return y, by_base, by_exponent


def _whole_power(a, b):
    """aᵇ of integers; for b < 0 rounded towards 0: ±1 stay, all others give 0."""
    y, down = a ** xp.maximum(b, 0), b < 0
    odd = xp.where(b % 2 == 1, a, 1)
    return xp.where(down, xp.where(xp.abs(a) == 1, odd, 0), y).astype(y.dtype)


def pow(input, exponent):
    """input to a power, both tensors or numbers; the gradient by the exponent needs input >= 0."""
    if type(exponent) is int and exponent < 0 and isinstance(input, Tensor) and is_integer(input):
        raise RuntimeError(
            f"pow: integers to the negative integer power {exponent}: convert with .float() first"
        )
    return _pow(input, exponent)


def _share(g, behind, level):
    """The cotangent of an operand: none if it is behind, half if both are equal, all for NaN."""
    return xp.zeroed(g, behind) * (1 - level * g.dtype.type(0.5))


@elementwise(autocast="fallthrough", numbers="error")
def maximum(a, b):
    y = xp.maximum(a, b)
    return y, lambda g: _share(g, a < b, a == b), lambda g: _share(g, b < a, a == b)


@elementwise(autocast="fallthrough", numbers="error")
def minimum(a, b):
    y = xp.minimum(a, b)
    return y, lambda g: _share(g, a > b, a == b), lambda g: _share(g, b > a, a == b)


@of_floats(autocast="promote", numbers="error")
def atan2(a, b):
    """The angle of the point (b, a). At the origin the gradients are 0, as PyTorch's."""

    def along(x):  # x / r², where r² itself may overflow or vanish
        r = xp.hypot(a, b)
        r = xp.where(r == 0, 1, r)
        return x / r / r

    return xp.arctan2(a, b), lambda g: g * along(b), lambda g: -g * along(a)


@elementwise(autocast="fallthrough")
def _at_least(x, low):
    y = xp.maximum(x, low)
    return y, lambda g: xp.zeroed(g, ~(x >= low)), lambda g: xp.zeroed(g, ~(x < low))


@elementwise(autocast="fallthrough")
def _at_most(x, high):
    y = xp.minimum(x, high)
    return y, lambda g: xp.zeroed(g, ~(x <= high)), lambda g: xp.zeroed(g, ~(x > high))


def clamp(input, min=None, max=None):
    """At least min, then at most max: numbers, tensors or None."""
    if min is None and max is None:
        raise RuntimeError("clamp: min and max are both None: give one of them")
    if not is_floating(input.data):
        want_numbers_fit("clamp", tuple(a for a in (input, min, max) if a is not None))
    x = input if min is None else _at_least(input, min)
    return x if max is None else _at_most(x, max)


def clamp_min(input, min):
    """The larger of input and min, which is a number or a tensor."""
    return _clamp_one("clamp_min", _at_least, input, min)


def clamp_max(input, max):
    """The smaller of input and max, which is a number or a tensor."""
    return _clamp_one("clamp_max", _at_most, input, max)


def _clamp_one(name, operation, input, bound):
    if bound is None:
        raise TypeError(f"{name}: the bound is None: want a number or a tensor")
    return operation(input, bound)


def where(condition, input, other):
    """input where the condition is true, other elsewhere."""
    want_one_place("where", condition, input, other)
    c = condition.data
    if c.dtype != bool:
        raise RuntimeError(f"where: a condition of {c.dtype.name}: compare first, or use .bool()")
    want_numbers_fit("where", (input, other))
    return _where(input, other, condition=c)


@elementwise(autocast="fallthrough")
def _where(a, b, *, condition):
    c = condition
    return xp.where(c, a, b), lambda g: xp.where(c, g, 0), lambda g: xp.where(c, 0, g)


def masked_fill(input, mask, value):
    """value (a number or a 0-d tensor) where the mask is true, in input's dtype."""
    if mask.dtype != bool or getattr(value, "ndim", 0):
        raise RuntimeError(f"masked_fill: mask of {mask.dtype.name} (want bool), value {value!r}")
    value = to_fill("masked_fill", value, input)
    if not isinstance(value, Tensor):
        value = Tensor(xp.full_like(half_precision.wide(input.data), value, shape=()))
    return where(mask, value.to(input.dtype), input)


def to_fill(name, value, input):
    """The value (a number or a 0-d tensor), after checking that it fits into input's dtype."""
    if not isinstance(value, Tensor):
        return fitting(name, value, input.dtype, floats=True)
    if value.dtype != input.dtype and not value.is_cuda:  # reading it would wait for the GPU
        want_fit(name, value.item(), input.dtype, floats=True)
    return value


# Functions of one argument, each made from its value and its slope


def _unary(name, autocast, value, of_x=None, of_y=None):
    """Its VJP is of_x(g, input) or of_y(g, output), and keeps no other array."""

    def function(x):
        y = value(x)
        vjp, kept = (of_x, x) if of_x else (of_y, y)
        return y, lambda g: vjp(g, kept)

    return _named(name, autocast, function, of_floats)


exp = _unary("exp", "fp32", functions.exp, of_y=lambda g, y: g * y)
expm1 = _unary("expm1", "fp32", functions.expm1, of_y=lambda g, y: g * (y + 1))
log = _unary("log", "fp32", functions.log, lambda g, x: g / x)
log2 = _unary("log2", "fp32", xp.log2, lambda g, x: g / (x * math.log(2)))
log10 = _unary("log10", "fp32", xp.log10, lambda g, x: g / (x * math.log(10)))
log1p = _unary("log1p", "fp32", functions.log1p, lambda g, x: g / (x + 1))
sqrt = _unary("sqrt", "fallthrough", xp.sqrt, of_y=lambda g, y: g / (2 * y))
rsqrt = _unary("rsqrt", "fp32", lambda x: 1 / xp.sqrt(x), of_y=lambda g, y: g * y**3 / -2)
reciprocal = _unary("reciprocal", "fp32", xp.reciprocal, of_y=lambda g, y: -g * y * y)
sin = _unary("sin", "fallthrough", xp.sin, lambda g, x: g * xp.cos(x))
cos = _unary("cos", "fallthrough", xp.cos, lambda g, x: -g * xp.sin(x))
tan = _unary("tan", "fp32", xp.tan, of_y=lambda g, y: g * (1 + y * y))
asin = _unary("asin", "fp32", xp.arcsin, lambda g, x: g / xp.sqrt(1 - x * x))
acos = _unary("acos", "fp32", xp.arccos, lambda g, x: -g / xp.sqrt(1 - x * x))
atan = _unary("atan", "fallthrough", xp.arctan, lambda g, x: g / (1 + x * x))
sinh = _unary("sinh", "fp32", xp.sinh, lambda g, x: g * xp.cosh(x))
cosh = _unary("cosh", "fp32", xp.cosh, lambda g, x: g * xp.sinh(x))
asinh = _unary("asinh", "fallthrough", xp.arcsinh, lambda g, x: g / xp.sqrt(x * x + 1))
acosh = _unary("acosh", "fallthrough", xp.arccosh, lambda g, x: g / xp.sqrt(x * x - 1))
atanh = _unary("atanh", "fallthrough", xp.arctanh, lambda g, x: g / (1 - x * x))
tanh = _unary("tanh", "fallthrough", functions.tanh, of_y=functions.tanh_slope)
erf = _unary("erf", "fp32", functions.erf, functions.erf_slope)


def _times(a, b):
    """a·b; bools become integers, as in pow."""
    return xp.multiply(a, b, dtype=int64) if a.dtype == bool_ else a * b


neg = _named("neg", "fallthrough", lambda x: (-x, lambda g: -g))
abs = _named(
    "abs",
    "fallthrough",
    lambda x: (xp.abs(_no_bools("abs", x)), lambda g: g * xp.sign_of(x)),
)
square = _named("square", "fp32", lambda x: (_times(x, x), lambda g: 2 * g * x))
clone = _named("clone", "fallthrough", lambda x: (x.copy(), lambda g: g), moves_only=True)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def _gelu(x, approximate):
    want_served("gelu", x)
    y, slope = gelu_kernel.forward(x, approximate)
    return y, lambda g: gelu_kernel.backward(g, slope)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) (Hendrycks & Gimpel 2016), exact or by its tanh approximation."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return _gelu(x, approximate)


# Steps, whose slope is 0, and predicates, which have none


def _step(value):
    function = lambda x: (value(_no_bools(value.__name__, x)), xp.zeros_like)
    return _named(value.__name__, "fallthrough", function)


def _predicate(value, **options):
    return _named(value.__name__, "fallthrough", lambda *operands: (value(*operands),), **options)


def _bits(value):
    def function(*operands):
        if xp.result_type(*operands).kind == "f":
            raise NotImplementedError(f"{value.__name__} of floats: it takes integers or bools")
        return (value(*operands),)

    return _named(value.__name__, "fallthrough", function)


floor, ceil, trunc = map(_step, (xp.floor, xp.ceil, xp.trunc))
sign = _named("sign", "fallthrough", lambda x: (xp.sign_of(x), xp.zeros_like))
isnan, isinf, isfinite = map(_predicate, (xp.isnan, xp.isinf, xp.isfinite))
eq, ne, lt, le = map(_predicate, (xp.equal, xp.not_equal, xp.less, xp.less_equal))
gt, ge, logical_not = map(_predicate, (xp.greater, xp.greater_equal, xp.logical_not))
logical_and, logical_or, logical_xor = (
    _predicate(f, numbers="error") for f in (xp.logical_and, xp.logical_or, xp.logical_xor)
)
bitwise_and, bitwise_or, bitwise_xor = map(_bits, (xp.bitwise_and, xp.bitwise_or, xp.bitwise_xor))


def bitwise_not(input):
    """~input, of integers bit by bit, of bools not."""
    if is_floating(input.data):
        raise TypeError(f"~ of {input.dtype.name}: it takes integers or bools")
    return Tensor(xp.invert(input.data))


def round(input, *, decimals=0):
    """To so many decimals, halves to the even neighbour."""
    return _round(input, decimals=decimals)


@elementwise(autocast="fallthrough")
def _round(x, *, decimals):
    return xp.round(_no_bools("round", x), decimals), xp.zeros_like


def isclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Where |input - other| <= atol + rtol·|other|."""
    if not (rtol >= 0 and atol >= 0):
        raise RuntimeError(f"isclose: rtol {rtol} and atol {atol}: want numbers >= 0")
    if input.dtype != other.dtype:
        raise RuntimeError(f"isclose: {input.dtype.name} and {other.dtype.name}: convert one")

    return _isclose(input, other, rtol=rtol, atol=atol, equal_nan=equal_nan)


@elementwise(autocast="fallthrough")
def _isclose(a, b, *, rtol, atol, equal_nan):
    return (xp.isclose(a, b, rtol, atol, equal_nan),)


def allclose(input, other, rtol=1e-5, atol=1e-8, equal_nan=False):
    """Whether |input - other| <= atol + rtol·|other| everywhere."""
    return bool(isclose(input, other, rtol, atol, equal_nan).data.all())


def equal(input, other):
    """Whether both have one shape and the same elements."""
    return input.shape == other.shape and bool((input == other).data.all())


@elementwise(autocast="fallthrough")
def _lerp(a, b, w):
    d, near = b - a, (w > -0.5) & (w < 0.5)
    from_a, from_b = (lambda: a + w * d), (lambda: b - (1 - w) * d)  # the end itself at 0 and at 1
    if isinstance(near, bool):
        y = from_a() if near else from_b()
    else:
        y = xp.where(near, from_a(), from_b())
    return y, lambda g: g * (1 - w), lambda g: g * w, lambda g: g * d


def lerp(input, end, weight):
    """input + weight·(end - input), the weight a number or a tensor."""
    want_one_dtype("lerp", input, end)
    want_floating("lerp", input)
    return _lerp(input, end, weight)


@elementwise(autocast="promote")
def _addcmul(x, a, b, *, value):
    want_whole("addcmul", x.dtype, value=value)
    value = wrapped(value, x.dtype)
    return x + value * a * b, lambda g: g, lambda g: g * (value * b), lambda g: g * (value * a)


def addcmul(input, tensor1, tensor2, *, value=1):
    """input + value·tensor1·tensor2, all three broadcast."""
    want_tensors("addcmul", input, tensor1, tensor2)
    return _addcmul(input, tensor1, tensor2, value=value)


@elementwise(autocast="promote")
def _addcdiv(x, a, b, *, value):
    part = value * a / b
    return x + part, lambda g: g, lambda g: g * (value / b), lambda g: -g * part / b


def addcdiv(input, tensor1, tensor2, *, value=1):
    """input + value·tensor1 / tensor2, all three broadcast."""
    want_tensors("addcdiv", input, tensor1, tensor2)
    if not (is_floating(tensor1.data) or is_floating(tensor2.data)):
        raise RuntimeError(
            f"addcdiv of {tensor1.dtype.name} and {tensor2.dtype.name}: integers are not divided: "
            "convert one with .float() first"
        )
    return _addcdiv(input, tensor1, tensor2, value=value)


@elementwise(autocast="fallthrough")
def _logaddexp(a, b):
    if xp.result_type(a, b).kind != "f":
        raise NotImplementedError("logaddexp of integers: convert with .float() first")
    return xp.logaddexp(a, b), lambda g: g * _sigmoid(a - b), lambda g: g * _sigmoid(b - a)


def _sigmoid(x):
    with xp.errstate(over="ignore"):  # 1 / (1 + inf) is right
        return 1 / (1 + xp.exp(-x))


def logaddexp(input, other):
    """log(exp(input) + exp(other)), without overflow."""
    want_tensors("logaddexp", input, other)
    return _logaddexp(input, other)


@differentiable(autocast="fallthrough")
def _nan_to_num(x, *, nan, posinf, neginf):
    y, finite = x.copy(), xp.isfinite(x)
    for found, value in ((xp.isnan(x), nan), (x == math.inf, posinf), (x == -math.inf, neginf)):
        y[found] = value
    return y, lambda g: xp.where(finite, g, 0)


def nan_to_num(input, nan=None, posinf=None, neginf=None):
    """NaN as `nan` (0), infinities as `posinf` and `neginf` (the dtype's largest and smallest)."""
    want_tensors("nan_to_num", input)
    if not is_floating(input.data):
        return input.clone()
    most = float(finfo(input.dtype).max)
    values = ((nan, 0.0), (posinf, most), (neginf, -most))
    nan, posinf, neginf = (default if v is None else float(v) for v, default in values)
    return _nan_to_num(input, nan=nan, posinf=posinf, neginf=neginf)


# Other names that PyTorch has

absolute, clip, multiply, negative, subtract = abs, clamp, mul, neg, sub
divide, true_divide = div, _div
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
