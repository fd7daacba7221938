"""Attention: separate queries, keys and values, or packed as one projection made them."""

import math

import numpy as np

from ..autograd import Joint
from ..kernels import attention as kernel
from .op import differentiable


@differentiable
def _attention(q, k, v, causal, scale):
    out = np.empty((*q.shape[:-1], v.shape[-1]), q.dtype)
    p = kernel.forward(q, k, v, out, causal, scale)

    def vjp(g):
        dq, dk, dv = (np.empty(x.shape, x.dtype) for x in (q, k, v))
        kernel.backward(g, q, k, v, out, p, dq, dk, dv, causal, scale)
        return [dq, dk, dv]

    return out, Joint(vjp)


def scaled_dot_product_attention(query, key, value, *, is_causal=False, scale=None):
    """softmax(q kᵀ · scale) v: (b, heads, s, d), (b, heads, t, d) twice -> (b, heads, s, d).

    With is_causal, query i sees keys 0..i. The default scale is 1/sqrt(d).
    """
    q, k, v = query.shape, key.shape, value.shape
    if len(q) != 4 or len(k) != 4 or k[:3] != v[:3] or q[:2] != k[:2] or q[3] != k[3]:
        raise RuntimeError(f"attention: query {q}, key {k}, value {v}: want (b, heads, length, d)")
    return _attention(query, key, value, is_causal, 1 / math.sqrt(q[3]) if scale is None else scale)


@differentiable
def _packed(qkv, heads, causal):
    b, s, width = qkv.shape
    d = width // 3 // heads
    scale = 1 / math.sqrt(d)
    # (b, s, 3, heads, d) -> three views (b, heads, s, d): nothing is copied
    split = lambda x: x.reshape(b, s, 3, heads, d).transpose(2, 0, 3, 1, 4)
    merge = lambda x: x.reshape(b, s, heads, d).transpose(0, 2, 1, 3)
    q, k, v = split(np.ascontiguousarray(qkv))
    y = np.empty((b, s, heads * d), qkv.dtype)
    p = kernel.forward(q, k, v, merge(y), causal, scale)

    def vjp(g):
        dqkv = np.empty((b, s, width), qkv.dtype)
        kernel.backward(
            merge(np.ascontiguousarray(g)), q, k, v, merge(y), p, *split(dqkv), causal, scale
        )
        return [dqkv]

    return y, Joint(vjp)


def packed_attention(qkv, heads, is_causal=False):
    """Multi-head attention on one projection: q, k, v in (b, s, 3·heads·d) -> (b, s, heads·d).

    Equal to splitting, scaled_dot_product_attention and merging the heads, without the copies.
    """
    if qkv.ndim != 3 or qkv.shape[2] % (3 * heads):
        raise RuntimeError(
            f"packed_attention: input {qkv.shape} with {heads} heads: want (b, s, 3·heads·d)"
        )
    return _packed(qkv, heads, is_causal)
