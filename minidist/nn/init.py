"""Initial values of tensors, drawn in place: PyTorch's nn.init.

Random numbers come from the default stream, or from `generator` if it is given.

A tensor-parallel layer draws the full weights with these functions and keeps its shard of them
(parallel/layout.py: shard_parameter).
"""

from __future__ import annotations

import math
from typing import Any

from ..absent import explain as _explain
from ..autograd.modes import no_grad
from ..kernels import arrays as xp
from ..kernels import blas
from ..tensor.generator import Generator, numbers_of
from ..tensor.tensor import Tensor

Drawn = Generator | None

GAINS = {"linear": 1.0, "sigmoid": 1.0, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 0.75} | {
    f"conv{kind}{dims}d": 1.0 for kind in ("", "_transpose") for dims in (1, 2, 3)
}


def calculate_gain(nonlinearity: str, param: float | None = None) -> float:
    """The factor that keeps the variance after a nonlinearity; param is leaky_relu's slope."""
    if nonlinearity == "leaky_relu":
        return math.sqrt(2 / (1 + (0.01 if param is None else param) ** 2))
    if nonlinearity not in GAINS:
        raise ValueError(f"no gain of {nonlinearity!r}: want one of {[*GAINS, 'leaky_relu']}")
    return GAINS[nonlinearity]


def _fill(tensor: Tensor, values: Any) -> Tensor:
    with no_grad():
        return tensor.copy_(values)


def uniform_(tensor: Tensor, a: float = 0.0, b: float = 1.0, generator: Drawn = None) -> Tensor:
    return _fill(tensor, numbers_of(generator).random(tensor.shape) * (b - a) + a)


def normal_(tensor: Tensor, mean: float = 0.0, std: float = 1.0, generator: Drawn = None) -> Tensor:
    return _fill(tensor, numbers_of(generator).standard_normal(tensor.shape) * std + mean)


def trunc_normal_(
    tensor: Tensor, mean: float = 0.0, std: float = 1.0, a: float = -2.0, b: float = 2.0,
    generator: Drawn = None,
) -> Tensor:  # fmt: skip
    """Normal numbers. Each is drawn again until it lies in [a, b]."""
    low, high = (0.5 * math.erf((x - mean) / std / math.sqrt(2)) for x in (a, b))
    if high - low < 1e-3:
        raise ValueError(f"trunc_normal_: almost no number of N({mean}, {std}) lies in [{a}, {b}]")
    draws, values = numbers_of(generator), xp.full(tensor.shape, xp.nan)
    while len(missing := xp.argwhere(~((values >= a) & (values <= b)))):
        values[tuple(missing.T)] = draws.standard_normal(len(missing)) * std + mean
    return _fill(tensor, values)


def constant_(tensor: Tensor, val: float) -> Tensor:
    return _fill(tensor, val)


def zeros_(tensor: Tensor) -> Tensor:
    return _fill(tensor, 0)


def ones_(tensor: Tensor) -> Tensor:
    return _fill(tensor, 1)


def eye_(tensor: Tensor) -> Tensor:
    if tensor.ndim != 2:
        raise ValueError(f"eye_: want 2 dimensions, not {tensor.shape}")
    return _fill(tensor, xp.eye(tensor.shape[0], tensor.shape[1]))


def _fans(tensor: Tensor) -> tuple[int, int]:
    """Fan in and fan out of a weight (out, in, *kernel): the terms of an output's sum, and back."""
    if tensor.ndim < 2:
        raise ValueError(f"fan in and fan out of a tensor {tensor.shape}: want 2 dimensions")
    kernel = math.prod(tensor.shape[2:])
    return tensor.shape[1] * kernel, tensor.shape[0] * kernel


def xavier_uniform_(tensor: Tensor, gain: float = 1.0, generator: Drawn = None) -> Tensor:
    """Uniform in ±gain·sqrt(6 / (fan_in + fan_out)) (Glorot & Bengio 2010)."""
    bound = gain * math.sqrt(6 / sum(_fans(tensor)))
    return uniform_(tensor, -bound, bound, generator)


def xavier_normal_(tensor: Tensor, gain: float = 1.0, generator: Drawn = None) -> Tensor:
    return normal_(tensor, 0.0, gain * math.sqrt(2 / sum(_fans(tensor))), generator)


def _kaiming(tensor: Tensor, a: float, mode: str, nonlinearity: str) -> float:
    fans = dict(zip(("fan_in", "fan_out"), _fans(tensor)))
    if mode not in fans:
        raise ValueError(f"mode {mode!r}: want 'fan_in' or 'fan_out'")
    return calculate_gain(nonlinearity, a) / math.sqrt(max(fans[mode], 1))


def kaiming_uniform_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Drawn = None,
) -> Tensor:  # fmt: skip
    """Uniform in ±gain·sqrt(3 / fan) (He et al. 2015)."""
    bound = math.sqrt(3) * _kaiming(tensor, a, mode, nonlinearity)
    return uniform_(tensor, -bound, bound, generator)


def kaiming_normal_(
    tensor: Tensor, a: float = 0, mode: str = "fan_in", nonlinearity: str = "leaky_relu",
    generator: Drawn = None,
) -> Tensor:  # fmt: skip
    return normal_(tensor, 0.0, _kaiming(tensor, a, mode, nonlinearity), generator)


def orthogonal_(tensor: Tensor, gain: float = 1.0, generator: Drawn = None) -> Tensor:
    """Orthonormal rows or columns, whichever are fewer, times gain (Saxe et al. 2013)."""
    if tensor.ndim < 2:
        raise ValueError(f"orthogonal_ of a tensor {tensor.shape}: want 2 dimensions or more")
    rows, columns = tensor.shape[0], math.prod(tensor.shape[1:])
    tall = sorted((rows, columns), reverse=True)
    blas.settle()  # the same bits, whatever the number of cores
    q, r = xp.linalg.qr(numbers_of(generator).standard_normal(tall))
    q *= xp.sign(xp.diag(r))  # without this the matrices are not uniformly distributed
    return _fill(tensor, gain * (q if rows >= columns else q.T).reshape(tensor.shape))


def default_(weight: Tensor, bias: Tensor | None) -> None:
    """Weight and bias of linear and convolution layers, as PyTorch: uniform in ±1/sqrt(fan_in)."""
    bound = 1 / math.sqrt(max(_fans(weight)[0], 1))
    uniform_(weight, -bound, bound)
    if bias is not None:
        uniform_(bias, -bound, bound)


_explain(__name__)  # names that PyTorch has and minidist not
