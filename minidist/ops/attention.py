"""Attention: separate queries, keys and values, or packed as one projection made them."""

import math

from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels import attention as kernel
from ..kernels.half_precision import cast, sum_dtype
from .dropout import keep_mask
from .op import differentiable, unbroadcast, want_one_dtype, want_served
from .shape import expand


def _bias(mask, like, lead, s, t):
    """What to add to the scores (lead, s, t) for a mask that broadcasts to them, or None."""
    if mask is None:
        return None
    if mask.dtype == bool:
        mask = cast(xp.where(mask, 0, -xp.inf), like.dtype)
    return _four(xp.broadcast_to(mask, (*lead, s, t)))


def _four(x):
    """(..., heads, s, d) as (b, heads, s, d)."""
    heads = x.shape[-3:-2] or (1,)
    return x.reshape(math.prod(x.shape[:-3]), *heads, *x.shape[-2:])


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _attention(q, k, v, mask, causal, scale, drop, need_mask):
    """Leading sizes of q, k and v are equal."""
    out, lead = xp.empty((*q.shape[:-1], v.shape[-1]), q.dtype), q.shape[:-2]
    q4, k4, v4 = map(_four, (q, k, v))
    bias = _bias(mask, q, lead, q.shape[-2], k.shape[-2])
    lse = kernel.forward(q4, k4, v4, _four(out), causal, scale, bias, drop)

    def vjp(g):
        dq, dk, dv = (xp.empty(x.shape, x.dtype) for x in (q, k, v))
        dmask = xp.empty((*q.shape[:-1], k.shape[-2]), q.dtype) if need_mask else None
        into = *map(_four, (dq, dk, dv)), causal, scale
        masks = bias, None if dmask is None else _four(dmask), drop
        kernel.backward(_four(g), q4, k4, v4, _four(out), lse, *into, *masks)
        return [dq, dk, dv, None if dmask is None else unbroadcast(dmask, mask.shape)]

    return out, Joint(vjp)


def _drop(p, shape, like, name):
    """(what is kept, its factor) for probabilities (samples, ..., s, t); None if p is 0."""
    if not 0 <= p <= 1:
        raise RuntimeError(f"attention: dropout_p = {p}: want 0 <= dropout_p <= 1")
    if not p:
        return None
    keep = keep_mask(name, shape if len(shape) > 2 else (1, *shape), 1 - p)
    factor = sum_dtype(like.dtype).type(1 / (1 - p) if p < 1 else 0)
    return _four(xp.at_home_of(like, keep)), factor


def _check_mask(mask, scores, query, causal):
    if mask is None:
        return
    if causal:
        raise RuntimeError("attention: attn_mask with is_causal=True: give one of them")
    if mask.dtype != bool:
        want_one_dtype("attention: attn_mask and query (bool would do, too)", mask, query)
    try:
        fits = mask.ndim > 1 and xp.broadcast_shapes(mask.shape, scores) == scores
    except ValueError:
        fits = False
    if not fits:
        raise RuntimeError(f"attention: attn_mask {mask.shape} does not broadcast to {scores}")


def scaled_dot_product_attention(
    query, key, value, attn_mask=None, dropout_p=0.0, is_causal=False, scale=None,
    enable_gqa=False, *, name="attention",
):  # fmt: skip
    """softmax(q kᵀ · scale + mask) v: (..., s, d), (..., t, d), (..., t, e) -> (..., s, e).

    Leading sizes broadcast. attn_mask (..., s, t) is True where a query may look, or floats that
    are added; with is_causal, query i sees keys 0..i instead. The default scale is 1/sqrt(d).
    With enable_gqa, each group of query heads (dimension -3) shares a head of keys and values
    (Ainslie et al. 2023). Dropout falls on the probabilities, by masks under `name`.
    """
    q, k, v = query.shape, key.shape, value.shape
    if min(map(len, (q, k, v))) < 2 or q[-1] != k[-1] or k[-2] != v[-2]:
        raise RuntimeError(f"attention: query {q}, key {k}, value {v}: want (..., length, d)")
    want_one_dtype("attention", query, key, value)
    want_served("attention", query.data)
    if enable_gqa:
        _check_groups(q, k, v)
    at = -3 if enable_gqa else -2  # what is before it broadcasts
    try:
        lead = xp.broadcast_shapes(q[:at], k[:at], v[:at])
    except ValueError:
        raise RuntimeError(
            f"attention: leading sizes of query {q}, key {k}, value {v} do not broadcast (groups "
            "of heads: enable_gqa=True)"
        ) from None
    scores = (*lead, *q[at:-1], k[-2])
    _check_mask(attn_mask, scores, query, is_causal)
    drop = _drop(dropout_p, scores, query.data, name)
    scale = 1 / math.sqrt(q[-1]) if scale is None else scale
    need_mask = getattr(attn_mask, "requires_grad", False)
    whole = lambda x: x if x.shape[:at] == lead else expand(x, *lead, *x.shape[at:])
    qkv = map(whole, (query, key, value))
    return _attention(*qkv, attn_mask, is_causal, scale, drop, need_mask)


def _check_groups(q, k, v):
    if min(map(len, (q, k, v))) < 3 or k[-3] != v[-3] or not k[-3] or q[-3] % k[-3]:
        raise RuntimeError(
            f"attention: query {q}, key {k}, value {v}: with enable_gqa, heads (dimension -3) of "
            "key and value must be equal and divide the query's"
        )


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _packed(qkv, mask, heads, causal, drop, need_mask):
    b, s, width = qkv.shape
    d = width // 3 // heads
    scale = 1 / math.sqrt(d)
    # (b, s, 3, heads, d) -> three views (b, heads, s, d): nothing is copied
    split = lambda x: x.reshape(b, s, 3, heads, d).transpose(2, 0, 3, 1, 4)
    merge = lambda x: x.reshape(b, s, heads, d).transpose(0, 2, 1, 3)
    q, k, v = split(xp.ascontiguousarray(qkv))
    y = xp.empty((b, s, heads * d), qkv.dtype)
    bias = _bias(mask, q, (b, heads), s, s)
    lse = kernel.forward(q, k, v, merge(y), causal, scale, bias, drop)

    def vjp(g):
        dqkv = xp.empty((b, s, width), qkv.dtype)
        dmask = xp.empty((b, heads, s, s), q.dtype) if need_mask else None
        into = *split(dqkv), causal, scale, bias, dmask, drop
        kernel.backward(merge(xp.ascontiguousarray(g)), q, k, v, merge(y), lse, *into)
        return [dqkv, None if dmask is None else unbroadcast(dmask, mask.shape)]

    return y, Joint(vjp)


def packed_attention(
    qkv, heads, is_causal=False, attn_mask=None, dropout_p=0.0, *, name="attention"
):
    """Multi-head attention on one projection: q, k, v in (b, s, 3·heads·d) -> (b, s, heads·d).

    Equal to splitting, scaled_dot_product_attention and merging the heads, without the copies.
    """
    if qkv.ndim != 3 or qkv.shape[2] % (3 * heads):
        raise RuntimeError(
            f"packed_attention: input {qkv.shape} with {heads} heads: want (b, s, 3·heads·d)"
        )
    want_served("packed", qkv.data)
    b, s, _ = qkv.shape
    _check_mask(attn_mask, (b, heads, s, s), qkv, is_causal)
    drop = _drop(dropout_p, (b, heads, s, s), qkv.data, name)
    need_mask = getattr(attn_mask, "requires_grad", False)
    return _packed(qkv, attn_mask, heads, is_causal, drop, need_mask)
