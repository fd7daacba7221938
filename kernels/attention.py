"""Scaled dot-product attention (Vaswani et al. 2017, 3.2.1): probabilities kept, or flash.

The ladder: naive, whole arrays; here, tiles in cache, whose probabilities are kept for backward,
memory O(s²); flash (NumPy's tiles in cache, Triton's in registers), which makes them again in
backward, memory O(s), for seven products instead of six and one more exponential.

Which runs: in NumPy, flash where a head has more than KEPT probabilities; on a GPU, flash always;
MINIDIST_KERNELS=naive, flash's formulas. Only dropout keeps the probabilities everywhere.

A tile is some heads, a block of queries and all the keys that they may see; its scores stay in
cache from the first product to the last. A causal block does not touch the keys after its last
query, which saves almost half of the work.

A mask is added to the scores (-inf hides; a query that sees nothing gives zeros). Dropout is an
array that multiplies the probabilities after they are normalised.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import arrays as xp
from . import flash
from .arrays import on_gpu
from .dispatch import forced
from .flash_tiles import ELEMENTS, Scratch, blocks, edge, fit, heads, lengths, near_queries, widened

Array = xp.ndarray
Drop = tuple[Array, float] | None  # what is kept (b, a, s, t), and 1/(1 - p)

QUERIES = 64  # rows of a block: fewer skip more of the masked half, more feed the GEMM better
# Most probabilities a head that are kept. Beyond, their memory is worth more than what flash takes
# longer: a tenth at 512 keys if none is hidden, and from 1,024 on, where those that are kept come
# from memory and no longer from cache, next to nothing.
KEPT = 256 * 256
FEW = 32  # queries; for so few, checking their lengths costs more than it saves


def naive(q, k, v, causal=False, scale=1.0):
    """The formula, whole arrays: (..., s, d) each."""
    scores = q @ k.swapaxes(-1, -2) * scale
    if causal:
        scores = xp.where(xp.tril(xp.ones_like(scores, xp.bool_)), scores, -xp.inf)
    e = xp.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def forward(
    q: Array, k: Array, v: Array, out: Array, causal: bool, scale: float,
    mask: Array | None = None, drop: Drop = None,
) -> Array:  # fmt: skip
    """q (b, a, s, d), k and v (b, a / group, t, d), any strides; fills out (b, a, s, d).

    mask (b, a, s, t) is added to the scores; drop is (what is kept (b, a, s, t), 1/(1-p)).
    Returns what backward wants: the log-sum-exp of the scores of each query (b, a, s), or the
    probabilities (b, a, s, t), unset where a causal query does not look.
    """
    if drop is None and _by_flash(q, k):
        return flash.forward(q, k, v, out, causal, scale, mask)
    return _forward(q, k, v, out, causal, scale, mask, drop)


def backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, saved: Array, dq: Array, dk: Array,
    dv: Array, causal: bool, scale: float, drop: Drop = None, dmask: Array | None = None,
    mask: Array | None = None,
) -> None:  # fmt: skip
    """Fills the cotangents dq, dk, dv (and dmask) from g, the cotangent of out (b, a, s, d)."""
    if saved.ndim == 3:
        flash.backward(g, q, k, v, out, saved, dq, dk, dv, causal, scale, mask, dmask)
    else:
        _backward(g, q, k, v, out, saved, dq, dk, dv, causal, scale, drop, dmask)


def _by_flash(q: Array, k: Array) -> bool:
    return on_gpu(q) or forced() in ("triton", "naive") or q.shape[2] * k.shape[2] > KEPT


def _tiles(q: Array, k: Array, causal: bool) -> Iterator[tuple[tuple, list[tuple], list[tuple]]]:
    """Few heads of keys, the queries of their groups, and blocks of queries with the keys they
    see, the last one first; all at once where there is no cache to stay in."""
    s, t = q.shape[2], k.shape[2]
    size = QUERIES if causal else max(1, 2 * ELEMENTS // max(t, 1))
    whole = on_gpu(q) or forced() == "naive"
    rows = list(blocks(0, s, max(s, 1) if whole else size))[::-1]
    pairs = [(r, slice(0, min(r.stop, t) if causal else t)) for r in rows]
    for few, members in heads(q, k, 1 if whole else min(size, s) * t):
        yield few, members, pairs


def _turned(x: Array, often: bool) -> Array:
    """(n, t, d) as (n, d, t): in memory if it serves many blocks: BLAS would turn it each time."""
    if not often:
        return x.swapaxes(-1, -2)
    dense = x if x.flags.c_contiguous else x.copy("C")  # to turn rows that lie apart takes thrice
    return dense.swapaxes(-1, -2).copy("C")


def _hide_the_future(scores: Array, first: int) -> None:
    """-inf where a key comes after its query; query row 0 of the block is number `first`."""
    late = scores[..., first:]
    rows, keys = late.shape[-2:]
    xp.fmin(late, edge(rows, keys, 0, scores, False), out=late)


def _normalise(scores: Array, ones: Array, masked: bool, near: Array | None) -> None:
    """Softmax in place; a row of -inf becomes zeros (only a mask makes such rows). From rows that
    are `near` 0 (n, r) no maximum is taken off."""
    if near is None or not near.all():
        top = scores.max(-1, keepdims=True)
        if masked:
            top[xp.isneginf(top)] = 0
        elif near is not None:
            top[near] = 0
        scores -= top
    xp.exp(scores, out=scores)
    total = xp.matmul(scores, ones)
    if masked:
        total[total == 0] = 1
    scores /= total


@widened(3)
def _forward(q, k, v, out, causal, scale, mask=None, drop=None):
    """As forward; the probabilities are kept and returned (b, a, s, t)."""
    s, t = q.shape[2], k.shape[2]
    p = xp.empty_like(q, shape=(*q.shape[:3], t), order="C")
    if not t:
        out[...] = 0
        return p
    long = s >= FEW and mask is None and not on_gpu(q)
    ones = xp.ones_like(p, shape=(t, 1))
    for few, members, pairs in _tiles(q, k, causal):
        kt = _turned(k[few], len(pairs) > 1)
        for at in members:
            near = None
            if long:
                near = near_queries(lengths(q[at]), fit(k[few], v[few]), scale, causal)
            for rows, keys in pairs:
                tile = p[at][:, rows, keys]
                xp.matmul(q[at][:, rows] * q.dtype.type(scale), kt[..., keys], out=tile)
                if causal:
                    _hide_the_future(tile, rows.start)
                if mask is not None:
                    tile += mask[at][:, rows, keys]
                of_rows = None if near is None else near[:, rows]
                _normalise(tile, ones[keys], mask is not None, of_rows)
                seen = tile if drop is None else tile * (drop[0][at][:, rows, keys] * drop[1])
                xp.matmul(seen, v[few][:, keys], out=out[at][:, rows])
    return p


@widened(6, 7, 8, 12)
def _backward(g, q, k, v, out, p, dq, dk, dv, causal, scale, drop=None, dmask=None):
    """As backward, from the probabilities."""
    s, scratch = q.shape[2], Scratch(q)
    unseen = s if causal or not s else k.shape[2]
    dk[:, :, unseen:], dv[:, :, unseen:] = 0, 0
    for few, members, pairs in _tiles(q, k, causal):
        vt = _turned(v[few], len(pairs) > 1)
        for member, at in enumerate(members):
            for rows, keys in pairs:
                gt, seen = g[at][:, rows], p[at][:, rows, keys]
                ds = scratch.product("slopes", gt, vt[..., keys])
                if drop is not None:
                    kept = drop[0][at][:, rows, keys] * drop[1]
                    ds *= kept
                    kept *= seen
                ds -= xp.einsum("hqd,hqd->hq", gt, out[at][:, rows])[..., None]
                ds *= seen
                if dmask is not None:
                    dmask[at][:, rows, keys] = ds
                fresh = member == 0 and rows.stop == s  # the last queries see every key
                seen = seen if drop is None else kept
                xp.matmul(ds, k[few][:, keys], out=dq[at][:, rows])
                scratch.put(dk[few][:, keys], ds.swapaxes(-1, -2), q[at][:, rows], fresh)
                scratch.put(dv[few][:, keys], seen.swapaxes(-1, -2), gt, fresh)
            dq[at] *= scale
        dk[few] *= scale
