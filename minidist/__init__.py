"""minidist: distributed training of language models, written by hand, small enough to read."""

from . import autograd, graph, random
from .array import bool_, float16, float32, float64, int32, int64
from .autograd import enable_grad, is_grad_enabled, no_grad, set_grad_enabled
from .random import manual_seed
from .recompute import checkpoint
from .tensor import Tensor

# isort: off
# fmt: off
from .creation import (  # noqa: F401
    arange, as_tensor, empty, empty_like, eye, from_numpy, full, full_like, linspace, ones,
    ones_like, rand, rand_like, randint, randn, randn_like, randperm, tensor, zeros, zeros_like,
)
from .ops import (  # noqa: F401
    abs, acos, add, all, allclose, amax, amin, any, argmax, argmin, argsort, asin, atan, atan2,
    bitwise_and, bitwise_not, bitwise_or, bitwise_xor, bmm, cat, ceil, chunk, clamp, clone, cos,
    cosh, cumsum, diagonal, div, dot, einsum, eq, equal, erf, exp, expm1, flatten,
    flip, floor, floor_divide, gather, ge, gt, index_select, isfinite, isinf, isnan,
    le, log, log10, log1p, log2, log_softmax, logical_and, logical_not, logical_or, logical_xor,
    logsumexp, lt, masked_fill, masked_select, matmul, max, maximum, mean, min, minimum, mm,
    mul, ne, neg, nonzero, norm, outer, permute, pow, prod, reciprocal, relu,
    remainder, reshape, roll, round, rsqrt, scatter_add, sigmoid,
    sign, sin, sinh, softmax, sort, split, sqrt, square, squeeze, stack, std, sub, sum, t, tan,
    tanh, topk, transpose, tril, triu, trunc, unbind, unsqueeze, var, where,
)
# fmt: on
# isort: on

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
