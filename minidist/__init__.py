"""minidist: distributed training of language models, written by hand, small enough to read."""

# ruff: noqa: F401
from math import e, inf, nan, pi

from numpy import iinfo

from . import autograd, cuda, graph, random, spelling
from .array import BFLOAT16 as bfloat16
from .array import DTYPES, bool_, finfo, float16, float32, float64, int32, int64
from .autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .device import device
from .precision import autocast, is_autocast_enabled
from .random import manual_seed
from .recompute import checkpoint
from .tensor import Tensor

# isort: off
# fmt: off
from .creation import (
    arange, as_tensor, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones,
    ones_like, rand, rand_like, randint, randn, randn_like, randperm, tensor, zeros, zeros_like,
)
from .derived import (
    addmm, allclose, bincount, count_nonzero, cumprod, diag, equal, hstack, index_add,
    isclose, lerp, median, meshgrid, movedim, mv, narrow, nonzero,
    repeat_interleave, scatter, select, std_mean, tile, unflatten, unique, var_mean, vstack,
)
from .draws import bernoulli, multinomial, normal
from .ops import (
    abs, acos, acosh, add, all, amax, amin, any, argmax, argmin, argsort, asin, asinh,
    atan, atan2, atanh, bitwise_and, bitwise_not, bitwise_or, bitwise_xor, bmm, cat, ceil, chunk,
    clamp, clone, cos, cosh, cumsum, diagonal, div, dot, einsum, eq, erf, exp, expm1,
    flatten, flip, floor, floor_divide, gather, ge, gt, index_select, isfinite, isinf, isnan, le,
    log, log10, log1p, log2, log_softmax, logical_and, logical_not, logical_or, logical_xor,
    logsumexp, lt, masked_fill, masked_select, matmul, max, maximum, mean, min, minimum, mm, mul,
    ne, neg, norm, outer, permute, pow, prod, reciprocal, relu, remainder, reshape, roll,
    round, rsqrt, scatter_add, sigmoid, sign, sin, sinh, softmax, sort, split, sqrt, square,
    squeeze, stack, std, sub, sum, t, tan, tanh, topk, transpose, tril, triu, trunc, unbind,
    unsqueeze, var, where,
)
# fmt: on
# isort: on

globals().update(spelling.SPELLED)
uint8, int8, int16 = (DTYPES[name] for name in ("uint8", "int8", "int16"))
half, float, double, long, int, bool = float16, float32, float64, int64, int32, bool_
Size = tuple  # what .shape is

__version__ = "0.1.0"

__all__ = [
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
