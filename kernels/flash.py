"""Attention in memory O(s): probabilities are not kept, backward makes them again (Dao 2023).

The ladder: naive, whole arrays of scores; in NumPy, a tile of scores (a few heads, a block of
queries, a block of keys) while it is in cache; in Triton (flash_triton), while it is in registers.
Forward goes along the keys of a block of queries with a running sum, and a running maximum where
it needs one (Milakov & Gimelshein 2018). It leaves the output and the log-sum-exp of each query,
from which backward, along the queries of a block of keys, has any tile of probabilities by one
product and one exponential. A causal tile that lies after its queries is not touched.

In NumPy each pass over a tile costs a tenth of a product, so three are saved. The factor of the
scores is multiplied into the keys, which are transposed once (BLAS takes them as they lie). Where
the lengths of queries and keys bound the scores so that no exponential can overflow, no maximum is
taken off. In backward, -lse and -Σ g·out are one more column beside q and g, against ones.
Temporary memory: two tiles and, of a tile's heads, forward an array like k, backward seven (k, v,
q, g and three sums); where rows lie apart, two more.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import arrays as xp
from . import flash_backward, flash_triton
from .dispatch import dispatched
from .flash_plan import served
from .flash_tiles import ALONG, Scratch, Tiles, block_size, blocks, dots, fit, group, heads, widened

Array = xp.ndarray

NOTHING = -1e30  # a finite -lse (-inf · 0 would be NaN) for queries that see nothing


def naive(
    q: Array, k: Array, v: Array, causal: bool, scale: float, mask: Array | None = None
) -> tuple[Array, Array]:
    """The formula, whole arrays: out (b, a, s, e) and the log-sum-exp (b, a, s)."""
    scores = _naive_scores(q, k, causal, scale, mask)
    nothing = xp.full_like(scores[..., :0], -xp.inf, shape=(*scores.shape[:-1], 1))
    top = scores.max(-1, keepdims=True) if scores.shape[-1] else nothing
    e = xp.exp(scores - xp.where(xp.isneginf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    total[total == 0] = 1
    return e / total @ _repeated(v, q), (top + xp.log(total))[..., 0]


def naive_backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, causal: bool, scale: float,
    mask: Array | None = None,
) -> tuple[Array, Array, Array, Array]:  # fmt: skip
    """The formulas, whole arrays: the cotangents of q, k, v and of the scores."""
    scores = _naive_scores(q, k, causal, scale, mask)
    p = xp.exp(scores - xp.where(xp.isneginf(lse), 0, lse)[..., None])
    ds = p * (g @ _repeated(v, q).swapaxes(-1, -2) - (g * out).sum(-1, keepdims=True))
    dk, dv = ds.swapaxes(-1, -2) @ q * scale, p.swapaxes(-1, -2) @ g
    dk, dv = (x.reshape(*k.shape[:2], group(q, k), *x.shape[2:]).sum(2) for x in (dk, dv))
    return ds @ _repeated(k, q) * scale, dk, dv, ds


def _naive_scores(q, k, causal, scale, mask):
    scores = q @ _repeated(k, q).swapaxes(-1, -2) * scale
    if causal:
        scores = xp.where(xp.tril(xp.ones_like(scores, xp.bool_)), scores, -xp.inf)
    return scores if mask is None else scores + mask


def _repeated(x: Array, q: Array) -> Array:
    return xp.repeat(x, group(q, x), 1)


def merge(out1: Array, lse1: Array, out2: Array, lse2: Array) -> tuple[Array, Array]:
    """Attention to two sets of keys from attention to each: out (b, a, s, e), lse (b, a, s)."""
    lse = xp.logaddexp(lse1, lse2)
    base = xp.where(xp.isneginf(lse), 0, lse)  # of who sees nothing in either: 0 · 0 + 0 · 0
    one, two = (xp.exp(x - base).astype(out1.dtype)[..., None] for x in (lse1, lse2))
    return one * out1 + two * out2, lse


@dispatched
@widened(3)
def forward(
    q: Array, k: Array, v: Array, out: Array, causal: bool, scale: float, mask: Array | None = None
) -> Array:
    """q (b, a, s, d), k (b, a / group, t, d), v (b, a / group, t, e); fills out (b, a, s, e).

    Returns the log-sum-exp of the scores of each query (b, a, s); where it sees nothing, -inf, and
    out is 0. mask (b, a, s, t) is added to the scores. Causal: query i sees keys 0..i. Any strides.
    """
    s, t = q.shape[2], k.shape[2]
    lse, scratch = xp.empty_like(q, shape=q.shape[:3], order="C"), Scratch(q)
    if not s * t:
        out[...], lse[...] = 0, -xp.inf
        return lse
    size, ones = block_size(s, 8, causal), xp.ones((t, 1), q.dtype)
    for few, members in heads(q, k, size * min(t, ALONG)):
        values = scratch.dense("dense v", v[few])
        of_keys = fit(k[few], values)
        tiles = Tiles(scratch, causal, mask is not None)
        kt = _over_ones(scratch, "k", k[few], scale * tiles.unit, s > size)[:, :-1]  # (n, d, t)
        for at in members:
            hidden, near = None if mask is None else mask[at], tiles.measure(q[at], of_keys, scale)
            for rows in blocks(0, s, size):
                along = blocks(0, min(rows.stop, t) if causal else t, ALONG)
                work = _exponentials(tiles, q[at], kt, hidden, near, rows, along)
                lse[at][:, rows] = _along_keys(work, tiles, ones, values, out[at][:, rows])
    return lse


def _exponentials(tiles, q, kt, mask, near, rows, along) -> Iterator[tuple]:
    """For a block of queries and each block of keys: which keys, exponentials of their scores less
    the highest so far, what those before are to be multiplied by, and the highest so far."""
    top = shrink = None
    for keys in along:
        p = tiles.scores(q, kt, mask, rows, keys)
        if not tiles.near:
            before, top = top, p.max(-1, keepdims=True)
            if before is not None:
                xp.maximum(top, before, out=top)
            if near is not None:
                top[near[:, rows]] = 0
            base = xp.where(xp.isneginf(top), 0, top)
            p -= base
            shrink = None if before is None else tiles.power(before - base)
        yield keys, tiles.exponentials(p, rows, keys), shrink, top


def _along_keys(exponentials, tiles, ones, v, out):
    """Fills out (n, r, e) of a block of queries and returns their log-sum-exp (n, r)."""
    total: Any = 0
    top = None
    acc = tiles.scratch("acc", *out.shape)
    for keys, p, shrink, top in exponentials:  # noqa: B007
        if shrink is not None:
            total *= shrink
            acc *= shrink
        total += xp.matmul(p, ones[keys])
        tiles.scratch.put(acc, p, v[:, keys], keys.start == 0)
    if tiles.masked:
        total[total == 0] = 1
    xp.divide(acc, total, out=out)
    lse = xp.log(total)
    return (lse if top is None else lse + top / tiles.unit)[..., 0]


@dispatched
@widened(6, 7, 8, 12)
def backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, dq: Array, dk: Array, dv: Array,
    causal: bool, scale: float, mask: Array | None = None, dmask: Array | None = None,
) -> None:  # fmt: skip
    """Fills the cotangents dq, dk, dv (and dmask) from g, the cotangent of out (b, a, s, e)."""
    s, t = q.shape[2], k.shape[2]
    seen, size = min(s, t) if causal else t * (s > 0), block_size(s, 16, causal)
    dk[:, :, seen:], dv[:, :, seen:] = 0, 0  # keys that no query sees
    if not seen:
        dq[...] = 0
        return
    scratch, factor = Scratch(q), q.dtype.type(scale)
    for few, members in heads(q, k, size * min(s, ALONG)):
        tiles = Tiles(scratch, causal, mask is not None)
        ks = scratch.dense("dense k", k[few])
        kt = _over_ones(scratch, "k", ks, scale * tiles.unit, s > ALONG)
        vt = _over_ones(scratch, "v", v[few], 1, s > ALONG)
        of_keys = fit(ks)
        to_k, to_v = scratch("dk", *k[few].shape), scratch("dv", *v[few].shape)
        for member, at in enumerate(members):
            to_q = scratch("dq", *q[at].shape)
            minus = xp.where(xp.isneginf(lse[at]), NOTHING, lse[at] * -tiles.unit)
            qs = _beside(scratch, "q", q[at], minus)
            gs = _beside(scratch, "g", g[at], -dots(g[at], out[at]))
            hidden = None if mask is None else mask[at]
            tiles.measure(qs[..., :-1], of_keys, scale)
            for keys in blocks(0, seen, size):
                start = keys.start if causal else 0
                for rows in blocks(start, s, ALONG):
                    fresh = member == 0 and rows.start == start
                    p = tiles.scores(qs, kt, hidden, rows, keys)
                    tiles.exponentials(p, rows, keys)
                    scratch.put(to_v[:, keys], p.swapaxes(-1, -2), gs[:, rows, :-1], fresh)
                    ds = scratch.product("slopes", gs[:, rows], vt[..., keys])
                    ds *= p
                    if dmask is not None:
                        dmask[at][:, rows, keys] = ds
                    scratch.put(to_k[:, keys], ds.swapaxes(-1, -2), qs[:, rows, :-1], fresh)
                    scratch.put(to_q[:, rows], ds, ks[:, keys], keys.start == 0)
            xp.multiply(to_q, factor, out=dq[at])
        xp.multiply(to_k[:, :seen], factor, out=dk[few][:, :seen])
        dv[few][:, :seen] = to_v[:, :seen]


def _over_ones(scratch: Scratch, name: str, x: Array, scale: float, often: bool) -> Array:
    """(n, t, d) as (n, d + 1, t), times scale, over a row of ones: turned in memory if it serves
    more than one block of queries, or BLAS would turn it each time."""
    n, t, d = x.shape
    y = scratch(name, n, d + 1, t) if often else scratch(name, n, t, d + 1).swapaxes(-1, -2)
    x = scratch.dense("dense", x) if often else x  # to turn rows that lie apart takes thrice
    xp.multiply(x.swapaxes(-1, -2), x.dtype.type(scale), out=y[:, :-1])
    y[:, -1] = 1
    return y


def _beside(scratch: Scratch, name: str, x: Array, last: Array) -> Array:
    """x (n, s, d) with last (n, s) as one more column."""
    y = scratch(name, *x.shape[:2], x.shape[2] + 1)
    y[..., :-1], y[..., -1] = x, last
    return y


# Other versions


@forward.version("naive")
@widened(3)
def _forward_naive(q, k, v, out, causal, scale, mask=None):
    out[...], lse = naive(q, k, v, causal, scale, mask)
    return lse


@backward.version("naive")
@widened(6, 7, 8, 12)
def _backward_naive(g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask=None, dmask=None):
    dq[...], dk[...], dv[...], ds = naive_backward(g, q, k, v, out, lse, causal, scale, mask)
    if dmask is not None:
        dmask[...] = ds


@forward.version("triton")
def _forward_triton(q, k, v, *others):
    return (flash_triton.forward if served(q, v) else forward.plain(q))(q, k, v, *others)


@backward.version("triton")
def _backward_triton(g, q, k, v, *others):
    (flash_backward.backward if served(q, v) else backward.plain(q))(g, q, k, v, *others)
