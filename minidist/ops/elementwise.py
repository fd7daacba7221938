"""Elementwise operations: each value beside its VJPs."""

import numpy as np

from ..kernels import gelu as gelu_kernel
from ..tensor import Tensor
from .op import differentiable, elementwise


@elementwise
def add(a, b):
    return a + b, lambda g: g, lambda g: g


@elementwise
def sub(a, b):
    return a - b, lambda g: g, lambda g: -g


@elementwise
def mul(a, b):
    return a * b, lambda g: g * b, lambda g: g * a


@elementwise
def div(a, b):
    y = a / b
    return y, lambda g: g / b, lambda g: -g * y / b


@elementwise
def neg(x):
    return -x, lambda g: -g


@elementwise
def _pow(a, b):
    y = a**b
    return (
        y,
        lambda g: g * b * a ** (b - 1 + (b == 0)),  # x⁰ is flat, at 0 too: not 0 · 0⁻¹
        lambda g: g * y * np.log(np.where(a == 0, 1, a)),
    )


def pow(a, exponent):
    """a to a power, both tensors or numbers; the gradient by the exponent needs a >= 0."""
    return _pow(a, exponent)


@elementwise
def exp(x):
    y = np.exp(x)
    return y, lambda g: g * y


@elementwise
def log(x):
    return np.log(x), lambda g: g / x


@elementwise
def sqrt(x):
    y = np.sqrt(x)
    return y, lambda g: g / (2 * y)


@elementwise
def tanh(x):
    y = np.tanh(x)
    return y, lambda g: g * (1 - y * y)


@elementwise
def relu(x):
    return np.maximum(x, 0), lambda g: g * (x > 0)


@elementwise
def clone(x):
    return x.copy(), lambda g: g


@differentiable
def cast(x, dtype):
    """Another dtype; the cotangent is cast back."""
    before = x.dtype
    return x.astype(dtype), lambda g: g.astype(before)


@differentiable
def _gelu(x, approximate):
    y, saved = gelu_kernel.forward(x, approximate)
    return y, lambda g: gelu_kernel.backward(g, x, saved, approximate)


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """x·Φ(x) (Hendrycks & Gimpel 2016), exact or by its tanh approximation."""
    if approximate not in ("none", "tanh"):
        raise ValueError(f"gelu: approximate is 'none' or 'tanh', not {approximate!r}")
    return _gelu(x, approximate)
