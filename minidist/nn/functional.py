"""The functions behind the layers, under PyTorch's names (torch.nn.functional)."""

from ..ops import (
    cross_entropy,
    dropout,
    embedding,
    gelu,
    layer_norm,
    linear,
    packed_attention,
    relu,
    scaled_dot_product_attention,
    softmax,
)

__all__ = [
    "cross_entropy",
    "dropout",
    "embedding",
    "gelu",
    "layer_norm",
    "linear",
    "packed_attention",
    "relu",
    "scaled_dot_product_attention",
    "softmax",
]
