"""minidist: distributed training of language models, written by hand, small enough to read.

This file is the list of public names. Importing it also binds the Tensor's methods to the
operations: see tensor/methods.py.
"""

# ruff: noqa: F401, I001
# fmt: off
from importlib import import_module as _import_module
from math import e, inf, nan, pi

from numpy import iinfo

from . import autograd, ops
from .absent import explain as _explain
from .amp import autocast, is_autocast_enabled
from .autograd import enable_grad, inference_mode, is_grad_enabled, no_grad, set_grad_enabled
from .autograd import show as graph
from .autograd.checkpoint import checkpoint
from .autograd.modes import is_inference_mode_enabled
from .ops import (
    abs, absolute, acos, acosh, add, addcdiv, addcmul, addmm, all, allclose, amax, amin, any,
    argmax, argmin, argsort, argwhere, asin, asinh, atan, atan2, atanh, baddbmm, bincount,
    bitwise_and, bitwise_not, bitwise_or, bitwise_xor, bmm, broadcast_to, cat, ceil, chunk, clamp,
    clamp_max, clamp_min, clip, clone, concat, concatenate, cos, cosh, count_nonzero, cumprod,
    cumsum, diag, diagonal, div, divide, dot, einsum, eq, equal, erf, exp, expm1, flatten, flip,
    floor, floor_divide, gather, ge, greater, greater_equal, gt, hstack, index_add, index_select,
    isclose, isfinite, isinf, isnan, le, lerp, less, less_equal, log, log10, log1p, log2,
    log_softmax, logaddexp, logical_and, logical_not, logical_or, logical_xor, logsumexp, lt,
    masked_fill, masked_select, matmul, max, maximum, mean, median, meshgrid, min, minimum, mm,
    moveaxis, movedim, mul, multiply, mv, nan_to_num, narrow, ne, neg, negative, nonzero, norm,
    not_equal, outer, permute, pow, prod, reciprocal, relu, remainder, repeat_interleave, reshape,
    roll, round, rsqrt, scatter, scatter_add, select, sigmoid, sign, sin, sinh, softmax, sort,
    split, sqrt, square, squeeze, stack, std, std_mean, sub, subtract, sum, swapaxes, swapdims, t,
    tan, tanh, take_along_dim, tensordot, tile, topk, transpose, tril, triu, true_divide, trunc,
    unbind, unflatten, unique, unsqueeze, var, var_mean, vstack, where,
)
from .tensor import cuda, random
from .tensor import methods as _methods
from .tensor.creation import (
    arange, as_tensor, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones,
    ones_like, rand, rand_like, randint, randn, randn_like, randperm, tensor, tril_indices,
    triu_indices, zeros, zeros_like,
)
from .tensor.device import device
from .tensor.dtypes import BFLOAT16 as bfloat16
from .tensor.dtypes import (
    DTYPES, bool_, finfo, float16, float32, float64, int8, int16, int32, int64, uint8,
)
from .tensor.generator import Generator
from .tensor.random import manual_seed
from .tensor.sampling import bernoulli, multinomial, normal
from .tensor.teaching import teaching as _teaching
from .tensor.tensor import Tensor, is_tensor
# fmt: on

half, float, double, long, int, bool = float16, float32, float64, int64, int32, bool_
numel, is_floating_point = map(_teaching, (Tensor.numel, Tensor.is_floating_point))
Size = tuple  # what .shape is

__version__ = "0.1.0"

_LAZY = {"nn": "minidist.nn", "optim": "minidist.optim", "comm": "minidist.comm"}


def _on_first_use(name: str) -> object:
    """md.nn, md.optim and md.comm need no import by name: each is loaded when it is first used."""
    return _import_module(_LAZY[name]) if name in _LAZY else None


_explain(__name__, _on_first_use)  # and explains names that only PyTorch has

__all__ = [
    "Generator",
    "Tensor",
    "arange",
    "autograd",
    "bool_",
    "cat",
    "checkpoint",
    "enable_grad",
    "float16",
    "float32",
    "float64",
    "full",
    "graph",
    "inference_mode",
    "int32",
    "int64",
    "is_grad_enabled",
    "manual_seed",
    "no_grad",
    "ones",
    "ones_like",
    "rand",
    "randn",
    "random",
    "set_grad_enabled",
    "tensor",
    "zeros",
    "zeros_like",
]
