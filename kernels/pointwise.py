"""Activations as formulas, each value beside its cotangent, worked out tile by tile."""

from collections.abc import Callable
from typing import Any

import numpy as np

from .tiles import flat_tiles


def tiled(formula: Callable[..., Any], *arguments: Any) -> np.ndarray:
    """formula(*arguments): arrays of one shape, worked through in tiles, then numbers."""
    arrays = [np.asarray(a, order="C") for a in arguments if isinstance(a, np.ndarray)]
    if arrays[-1].dtype.kind != "f":
        name = arrays[-1].dtype.name
        raise NotImplementedError(f"an activation of {name}: convert with .float() first")
    out, numbers = np.empty_like(arrays[-1]), arguments[len(arrays) :]
    with np.errstate(over="ignore"):  # exp(-x) may be infinite: 1 / (1 + it) is 0
        for *parts, part in flat_tiles(*arrays, out):
            part[...] = formula(*parts, *numbers)
    return out


def sigmoid(x):
    """1 / (1 + exp(-x)), in one temporary."""
    y = np.negative(x)
    np.exp(y, out=y)
    y += 1
    return np.divide(1, y, out=y)


def sigmoid_slope(g, y):
    """From the sigmoid y."""
    return g * y * (1 - y)


def log_sigmoid(x):
    return -log1p_exp(-x)


def log_sigmoid_slope(g, x):
    return g * sigmoid(-x)


def log1p_exp(x):
    """log(1 + exp(x)), without overflow and exact where it is tiny."""
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus(x, beta, threshold):
    scaled = x * beta
    y = log1p_exp(scaled) / beta
    return np.where(scaled > threshold, x, y) if scaled.max(initial=-np.inf) > threshold else y


def softplus_slope(g, x, beta, threshold):
    scaled = x * beta
    dx = g * sigmoid(scaled)
    return np.where(scaled > threshold, g, dx) if scaled.max(initial=-np.inf) > threshold else dx


def silu(x):
    return x * sigmoid(x)


def silu_slope(g, x):
    s = sigmoid(x)
    return g * s * (1 + x * (1 - s))


def leaky_relu(x, slope):
    return (np.maximum if slope <= 1 else np.minimum)(x, x * slope)


def leaky_relu_slope(g, x, slope):
    if 0 <= slope <= 1:  # np.where takes four times as long
        return g * np.maximum((x > 0).astype(x.dtype), slope)
    return np.where(x > 0, g, g * slope)


def elu(x, alpha):
    return np.maximum(x, 0) + alpha * np.expm1(np.minimum(x, 0))


def elu_slope(g, x, alpha):
    slope = np.exp(np.minimum(x, 0))
    return g * (slope if alpha == 1 else np.where(x > 0, 1, alpha * slope))
