"""Activation layers: each a function of nn.functional with its options."""

from __future__ import annotations

from typing import Any

from ..tensor.creation import full
from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import functional as F
from .layers import refuse_inplace
from .module import Module, Parameter


class _Activation(Module):
    """A function and the options that it takes after its input, which `shown` names."""

    function: Any

    def __init__(self, inplace: bool = False):
        refuse_inplace(inplace)

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, *(getattr(self, name) for name in self.shown))


class ReLU(_Activation):
    """max(x, 0)."""

    function = staticmethod(F.relu)


class SiLU(_Activation):
    """x·sigmoid(x)."""

    function = staticmethod(F.silu)


class Sigmoid(_Activation):
    """1 / (1 + exp(-x))."""

    function = staticmethod(F.sigmoid)


class LogSigmoid(_Activation):
    """log(sigmoid(x))."""

    function = staticmethod(F.logsigmoid)


class Tanh(_Activation):
    """The hyperbolic tangent."""

    function = staticmethod(F.tanh)


class GELU(_Activation):
    """x·Φ(x), exact or approximate='tanh'."""

    function, shown = staticmethod(F.gelu), ("approximate",)

    def __init__(self, approximate: str = "none"):
        self.approximate = approximate


class Mish(_Activation):
    """x·tanh(softplus(x))."""

    function = staticmethod(F.mish)


class SELU(_Activation):
    """ELU with an alpha and a scale that keep mean 0 and variance 1."""

    function = staticmethod(F.selu)


class Hardswish(_Activation):
    """x·relu6(x + 3) / 6."""

    function = staticmethod(F.hardswish)


class ReLU6(_Activation):
    """min(max(x, 0), 6)."""

    function = staticmethod(F.relu6)


class Hardtanh(_Activation):
    """x, limited to the range from min_val to max_val."""

    function, shown = staticmethod(F.hardtanh), ("min_val", "max_val")

    def __init__(self, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False):
        super().__init__(inplace)
        if min_val >= max_val:
            raise ValueError(f"Hardtanh({min_val}, {max_val}): want min_val < max_val")
        self.min_val, self.max_val = min_val, max_val


class GLU(_Activation):
    """a·sigmoid(b) for the halves a and b of dim."""

    function, shown = staticmethod(F.glu), ("dim",)

    def __init__(self, dim: int = -1):
        self.dim = dim


class LeakyReLU(_Activation):
    """x where it is positive, negative_slope·x elsewhere."""

    function, shown = staticmethod(F.leaky_relu), ("negative_slope",)

    def __init__(self, negative_slope: float = 0.01, inplace: bool = False):
        super().__init__(inplace)
        self.negative_slope = negative_slope


class ELU(_Activation):
    """x where it is positive, alpha·(exp(x) - 1) elsewhere."""

    function, shown = staticmethod(F.elu), ("alpha",)

    def __init__(self, alpha: float = 1.0, inplace: bool = False):
        super().__init__(inplace)
        self.alpha = alpha


class Softplus(_Activation):
    """log(1 + exp(beta·x)) / beta."""

    function, shown = staticmethod(F.softplus), ("beta", "threshold")

    def __init__(self, beta: float = 1.0, threshold: float = 20.0):
        self.beta, self.threshold = beta, threshold


class PReLU(Module):
    """x where it is positive, weight·x elsewhere, weight (1,) or one for each channel."""

    shown = ("num_parameters",)

    def __init__(self, num_parameters: int = 1, init: float = 0.25, *, dtype: DTypeLike = DEFAULT):
        self.num_parameters = num_parameters
        self.weight = Parameter(full((num_parameters,), init, dtype))

    def forward(self, input: Tensor) -> Tensor:
        return F.prelu(input, self.weight)


class Softmax(_Activation):
    """exp(x) / sum(exp(x)) along dim, which must be given."""

    function, shown = staticmethod(F.softmax), ("dim",)

    def __init__(self, dim: int):
        self.dim = dim


class LogSoftmax(Softmax):
    """x - log(sum(exp(x))) along dim, which must be given."""

    function = staticmethod(F.log_softmax)
