"""Elementwise operations: each value beside its VJPs."""

import functools
import math

from ..array import DEFAULT, is_floating
from ..device import want_one_place
from ..kernels import arrays as np
from ..kernels import gelu as gelu_kernel
from ..kernels import halves
from ..kernels.erf import erf as erf_kernel
from ..kernels.pointwise import tiled
from ..tensor import Tensor
from .op import differentiable, elementwise


def of_floats(function):
    """As elementwise, for what has no integer results: integers and bools become float32."""

    @functools.wraps(function)
    def of_cast(*operands):
        integers = (isinstance(a, np.ndarray) and not is_floating(a) for a in operands)
        return function(*(a.astype(DEFAULT) if i else a for i, a in zip(integers, operands)))

    return elementwise(of_cast)


def _named(name, function, decorator=elementwise):
    function.__name__ = name
    return decorator(function)


# Of two arguments

_add = _named("add", lambda a, b: (a + b, lambda g: g, lambda g: g))
_sub = _named("sub", lambda a, b: (a - b, lambda g: g, lambda g: -g))
mul = _named("mul", lambda a, b: (a * b, lambda g: g * b, lambda g: g * a))


def add(input, other, *, alpha=1):
    """input + alpha·other."""
    return _add(input, other if alpha == 1 else other * alpha)


def sub(input, other, *, alpha=1):
    """input - alpha·other."""
    return _sub(input, other if alpha == 1 else other * alpha)


@of_floats
def div(a, b):
    y = a / b
    return y, lambda g: g / b, lambda g: -g * y / b


def _whole(function, a, b):
    if np.result_type(a, b).kind != "f" and not np.on_gpu(b) and not np.all(b):
        raise ValueError("an integer divided by zero")
    return function(a, b)


@elementwise
def floor_divide(a, b):
    return _whole(np.floor_divide, a, b), np.zeros_like, np.zeros_like


@elementwise
def remainder(a, b):
    return _whole(np.remainder, a, b), lambda g: g, lambda g: -g * (a // b)


@elementwise
def _pow(a, b):
    cube = type(b) in (int, float) and b == 3
    y = a * a * a if cube else a**b  # NumPy is quick for squares alone
    return (
        y,
        lambda g: g * b * a ** (b - 1 + (b == 0)),  # x⁰ is flat, at 0 too: not 0 · 0⁻¹
        lambda g: g * y * np.log(np.where(a == 0, 1, a)),
    )


def pow(input, exponent):
    """input to a power, both tensors or numbers; the gradient by the exponent needs input >= 0."""
    return _pow(input, exponent)


def _share(g, ahead, level):
    """The cotangent of the operand that is ahead; of equal ones each has half."""
    return np.where(level, g / 2, g * ahead)


@elementwise
def maximum(a, b):
    y = np.maximum(a, b)
    return y, lambda g: _share(g, a > b, a == b), lambda g: _share(g, b > a, a == b)


@elementwise
def minimum(a, b):
    y = np.minimum(a, b)
    return y, lambda g: _share(g, a < b, a == b), lambda g: _share(g, b < a, a == b)


@of_floats
def atan2(a, b):
    return np.arctan2(a, b), lambda g: g * b / (a * a + b * b), lambda g: -g * a / (a * a + b * b)


@elementwise
def _at_least(x, low):
    return np.maximum(x, low), lambda g: g * (x >= low), lambda g: g * (x < low)


@elementwise
def _at_most(x, high):
    return np.minimum(x, high), lambda g: g * (x <= high), lambda g: g * (x > high)


def clamp(input, min=None, max=None):
    """At least min, then at most max: numbers, tensors or None."""
    if min is None and max is None:
        raise RuntimeError("clamp: min and max are both None: give one of them")
    x = input if min is None else _at_least(input, min)
    return x if max is None else _at_most(x, max)


def where(condition, input, other):
    """input where the condition is true, other elsewhere."""
    want_one_place("where", condition, input, other)
    c = condition.data
    if c.dtype != bool:
        raise RuntimeError(f"where: a condition of {c.dtype.name}: compare first, or use .bool()")

    def choose(a, b):
        return np.where(c, a, b), lambda g: np.where(c, g, 0), lambda g: np.where(c, 0, g)

    return _named("where", choose)(input, other)


def masked_fill(input, mask, value):
    """value (a number or a 0-d tensor) where the mask is true, in input's dtype."""
    if mask.dtype != bool or getattr(value, "ndim", 0):
        raise RuntimeError(f"masked_fill: mask of {mask.dtype.name} (want bool), value {value!r}")
    if not isinstance(value, Tensor):
        value = Tensor(np.full_like(halves.wide(input.data), value, shape=()))
    return where(mask, value.to(input.dtype), input)


# Of one argument, from its value and its slope


def _unary(name, value, of_x=None, of_y=None):
    """Its VJP is of_x(g, input) or of_y(g, output), and keeps no other array."""

    def function(x):
        y = value(x)
        vjp, kept = (of_x, x) if of_x else (of_y, y)
        return y, lambda g: vjp(g, kept)

    return _named(name, function, of_floats)


exp = _unary("exp", np.exp, of_y=lambda g, y: g * y)
expm1 = _unary("expm1", np.expm1, of_y=lambda g, y: g * (y + 1))
log = _unary("log", np.log, lambda g, x: g / x)
log2 = _unary("log2", np.log2, lambda g, x: g / (x * math.log(2)))
log10 = _unary("log10", np.log10, lambda g, x: g / (x * math.log(10)))
log1p = _unary("log1p", np.log1p, lambda g, x: g / (x + 1))
sqrt = _unary("sqrt", np.sqrt, of_y=lambda g, y: g / (2 * y))
rsqrt = _unary("rsqrt", lambda x: 1 / np.sqrt(x), of_y=lambda g, y: g * y**3 / -2)
reciprocal = _unary("reciprocal", np.reciprocal, of_y=lambda g, y: -g * y * y)
sin = _unary("sin", np.sin, lambda g, x: g * np.cos(x))
cos = _unary("cos", np.cos, lambda g, x: -g * np.sin(x))
tan = _unary("tan", np.tan, of_y=lambda g, y: g * (1 + y * y))
asin = _unary("asin", np.arcsin, lambda g, x: g / np.sqrt(1 - x * x))
acos = _unary("acos", np.arccos, lambda g, x: -g / np.sqrt(1 - x * x))
atan = _unary("atan", np.arctan, lambda g, x: g / (1 + x * x))
sinh = _unary("sinh", np.sinh, lambda g, x: g * np.cosh(x))
cosh = _unary("cosh", np.cosh, lambda g, x: g * np.sinh(x))
asinh = _unary("asinh", np.arcsinh, lambda g, x: g / np.sqrt(x * x + 1))
acosh = _unary("acosh", np.arccosh, lambda g, x: g / np.sqrt(x * x - 1))
atanh = _unary("atanh", np.arctanh, lambda g, x: g / (1 - x * x))
tanh = _unary("tanh", np.tanh, of_y=lambda g, y: g * (1 - y * y))
erf = _unary(
    "erf",
    lambda x: tiled(erf_kernel, x),
    lambda g, x: g * np.exp(-x * x) * (2 / math.sqrt(math.pi)),
)

neg = _named("neg", lambda x: (-x, lambda g: -g))
abs = _named("abs", lambda x: (np.abs(x), lambda g: g * np.sign(x)))
square = _named("square", lambda x: (x * x, lambda g: 2 * g * x))
clone = _named("clone", lambda x: (x.copy(), lambda g: g))


@differentiable
def cast(x, dtype):
    """Another dtype; the cotangent is cast back."""
    before = x.dtype
    return halves.cast(x, dtype), lambda g: halves.cast(g, before)


@differentiable
def _gelu(x, approximate):
    y, slope = gelu_kernel.forward(x, approximate)
    return y, lambda g: gelu_kernel.backward(g, slope)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) (Hendrycks & Gimpel 2016), exact or by its tanh approximation."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return _gelu(x, approximate)


# Steps, whose slope is 0, and predicates, which have none


def _step(value, name=None):
    return _named(name or value.__name__, lambda x: (value(x), np.zeros_like))


def _predicate(value, name=None):
    return _named(name or value.__name__, lambda *operands: (value(*operands),))


def _bits(value):
    def function(*operands):
        if np.result_type(*operands).kind == "f":
            raise NotImplementedError(f"{value.__name__} of floats: it takes integers or bools")
        return (value(*operands),)

    return _named(value.__name__, function)


floor, ceil, trunc, sign = map(_step, (np.floor, np.ceil, np.trunc, np.sign))
isnan, isinf, isfinite = map(_predicate, (np.isnan, np.isinf, np.isfinite))
eq, ne, lt, le = map(_predicate, (np.equal, np.not_equal, np.less, np.less_equal))
gt, ge, logical_not = map(_predicate, (np.greater, np.greater_equal, np.logical_not))
logical_and, logical_or = map(_predicate, (np.logical_and, np.logical_or))
logical_xor, bitwise_xor = _predicate(np.logical_xor), _bits(np.bitwise_xor)
bitwise_and, bitwise_or = map(_bits, (np.bitwise_and, np.bitwise_or))


def bitwise_not(input):
    """~input, of integers bit by bit, of bools not."""
    if is_floating(input.data):
        raise TypeError(f"~ of {input.dtype.name}: it takes integers or bools")
    return Tensor(np.invert(input.data))


def round(input, *, decimals=0):
    """To so many decimals, halves to the even neighbour."""
    return _step(lambda x: np.round(x, decimals), "round")(input)
