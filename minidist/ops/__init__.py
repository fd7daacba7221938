"""Differentiable functions, one family a file: each value stands beside its VJPs."""

# ruff: noqa: F401, I001
# fmt: off
from .activation import (
    elu, leaky_relu, log_softmax, logsigmoid, prelu, relu, sigmoid, silu, softmax, softplus,
    swiglu,
)
from .attention import packed_attention, scaled_dot_product_attention
from .conv import conv1d, conv2d, conv_transpose2d
from .dropout import dropout
from .einsum import einsum
from .elementwise import (
    abs, acos, acosh, add, asin, asinh, atan, atan2, atanh, bitwise_and, bitwise_not,
    bitwise_or, bitwise_xor, cast, ceil, clamp, clone, cos, cosh, div, eq, erf, exp, expm1,
    floor, floor_divide, ge, gelu, gt, isfinite, isinf, isnan, le, log, log10, log1p, log2,
    logical_and, logical_not, logical_or, logical_xor, lt, masked_fill, maximum, minimum, mul, ne,
    neg, pow, reciprocal, remainder, round, rsqrt, sign, sin, sinh, sqrt, square, sub, tan, tanh,
    trunc, where,
)
from .embedding import embedding
from .index import gather, index_select, masked_select, scatter_add
from .loss import (
    binary_cross_entropy, binary_cross_entropy_with_logits, cross_entropy, ctc_loss, huber_loss,
    kl_div, l1_loss, linear_cross_entropy, mse_loss, nll_loss,
)
from .normalization import batch_norm, group_norm, layer_norm, rms_norm
from .pool import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d, max_pool1d, max_pool2d,
)
from .product import bmm, dot, linear, matmul, mm, outer
from .reduce import all, amax, amin, any, cumsum, logsumexp, mean, norm, prod, std, sum, var
from .rotary import rotary_embedding
from .shape import (
    cat, chunk, contiguous, diagonal, expand, flatten, flip, getitem, pad, permute, repeat,
    reshape, roll, split, squeeze, stack, t, transpose, tril, triu, unbind, unsqueeze, view,
)
from .sort import argmax, argmin, argsort, max, min, sort, topk
