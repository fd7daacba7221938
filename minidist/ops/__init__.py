"""Differentiable functions, one family a file: each value stands beside its VJPs."""

# ruff: noqa: F401, I001
# fmt: off
from .activation import (
    elu, glu, hardswish, hardtanh, leaky_relu, logsigmoid, mish, prelu, relu, relu6, selu, sigmoid,
    silu, softplus, swiglu,
)
from .attention import packed_attention, scaled_dot_product_attention
from .conv import conv1d, conv2d, conv_transpose2d
from .dropout import dropout, dropout2d
from .einsum import einsum
from .elementwise import (
    abs, absolute, acos, acosh, add, addcdiv, addcmul, allclose, asin, asinh, atan, atan2, atanh,
    bitwise_and, bitwise_not, bitwise_or, bitwise_xor, ceil, clamp, clamp_max, clamp_min, clip,
    clone, cos, cosh, div, divide, eq, equal, erf, exp, expm1, floor, floor_divide, ge, gelu,
    greater, greater_equal, gt, isclose, isfinite, isinf, isnan, le, lerp, less, less_equal, log,
    log10, log1p, log2, logaddexp, logical_and, logical_not, logical_or, logical_xor, lt,
    masked_fill, maximum, minimum, mul, multiply, nan_to_num, ne, neg, negative, not_equal, pow,
    reciprocal, remainder, round, rsqrt, sign, sin, sinh, sqrt, square, sub, subtract, tan, tanh,
    true_divide, trunc, where,
)
from .embedding import embedding
from .index import (
    argwhere, bincount, gather, getitem, index_add, index_select, masked_select, nonzero, one_hot,
    scatter, scatter_add, take_along_dim,
)
from .loss import (
    binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, ctc_loss, huber_loss,
    kl_div, l1_loss, linear_cross_entropy, mse_loss, nll_loss, smooth_l1_loss,
)
from .normalization import (
    batch_norm, cosine_similarity, group_norm, layer_norm, normalize, rms_norm,
)
from .pad import pad
from .pool import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d, max_pool1d, max_pool2d,
)
from .product import addmm, baddbmm, bmm, dot, linear, matmul, mm, mv, outer, tensordot
from .reduce import (
    all, amax, amin, any, count_nonzero, cumprod, cumsum, logsumexp, mean, norm, prod, std,
    std_mean, sum, var, var_mean,
)
from .resample import interpolate
from .rotary import rotary_embedding
from .shape import (
    broadcast_to, cat, chunk, concat, concatenate, contiguous, diag, diagonal, expand, flatten,
    flip, hstack, meshgrid, moveaxis, movedim, narrow, permute, repeat, repeat_interleave,
    reshape, roll, select, split, squeeze, stack, swapaxes, swapdims, t, tile, transpose, tril,
    triu, unbind, unflatten, unsqueeze, view, vstack,
)
from .softmax import log_softmax, softmax
from .sort import argmax, argmin, argsort, max, median, min, sort, topk, unique
from .transfer import cast

from types import FunctionType as _Function

from ..tensor.teaching import teaching as _teaching

for _name, _function in tuple(globals().items()):
    if isinstance(_function, _Function) and not hasattr(_function, "teaches"):
        globals()[_name] = _teaching(_function)  # inside the family files the names stay bare
        globals()[_name].__module__ = __name__  # where pickle finds it
