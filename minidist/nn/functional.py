"""The functions behind the layers, under PyTorch's names (torch.nn.functional)."""

# ruff: noqa: F401, I001
# fmt: off
from ..derived import cosine_similarity, normalize, one_hot
from ..ops import (
    adaptive_avg_pool1d, adaptive_avg_pool2d, avg_pool1d, avg_pool2d, batch_norm,
    binary_cross_entropy, binary_cross_entropy_with_logits, conv1d, conv2d, conv_transpose2d,
    cross_entropy, ctc_loss, dropout, elu, embedding, gelu, group_norm, huber_loss, kl_div, l1_loss,
    layer_norm, leaky_relu, linear, linear_cross_entropy, log_softmax, logsigmoid,
    max_pool1d, max_pool2d, mse_loss, nll_loss, packed_attention, pad, prelu, relu, rms_norm,
    rotary_embedding, scaled_dot_product_attention, sigmoid, silu, softmax, softplus, swiglu, tanh,
)
