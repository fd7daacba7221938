"""Differentiable functions, one family a file: each value stands beside its VJPs."""

from .attention import packed_attention, scaled_dot_product_attention
from .dropout import dropout
from .elementwise import (
    add,
    cast,
    clone,
    div,
    exp,
    gelu,
    log,
    mul,
    neg,
    pow,
    relu,
    sqrt,
    sub,
    tanh,
)
from .embedding import embedding
from .loss import cross_entropy
from .normalization import layer_norm
from .product import linear, matmul
from .reduce import amax, mean, softmax, sum
from .shape import (
    cat,
    expand,
    flatten,
    getitem,
    permute,
    reshape,
    squeeze,
    transpose,
    unsqueeze,
    view,
)

__all__ = [
    "add",
    "amax",
    "cast",
    "cat",
    "clone",
    "cross_entropy",
    "div",
    "dropout",
    "embedding",
    "exp",
    "expand",
    "flatten",
    "gelu",
    "getitem",
    "layer_norm",
    "linear",
    "log",
    "matmul",
    "mean",
    "mul",
    "neg",
    "packed_attention",
    "permute",
    "pow",
    "relu",
    "reshape",
    "scaled_dot_product_attention",
    "softmax",
    "sqrt",
    "squeeze",
    "sub",
    "sum",
    "tanh",
    "transpose",
    "unsqueeze",
    "view",
]
