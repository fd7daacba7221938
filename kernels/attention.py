"""Scaled dot-product attention (Vaswani et al. 2017, 3.2.1), a few heads and query rows at a time.

The scores of one tile (some heads, a block of queries, all the keys they may see) stay in cache
from the first product to the last. A causal block never touches the keys after its last query,
which saves almost half of the work. Probabilities are kept for backward: O(s²) memory.

A mask is added to the scores (-inf hides; a query that sees nothing gives zeros). Dropout is an
array that multiplies the probabilities after they are normalised.
"""

from collections.abc import Iterator

import numpy as np

from .tiles import ELEMENTS

QUERIES = 64  # rows of a block: fewer skip more of the masked half, more feed the GEMM better


def naive(q, k, v, causal=False, scale=1.0):
    """The formula, whole arrays: (..., s, d) each."""
    scores = q @ k.swapaxes(-1, -2) * scale
    if causal:
        scores = np.where(np.tri(*scores.shape[-2:], dtype=np.bool_), scores, -np.inf)
    e = np.exp(scores - scores.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True) @ v


def _tiles(q: np.ndarray, keys: int, causal: bool) -> Iterator[tuple[tuple, slice, slice]]:
    """((batch, heads), queries, keys they see), the last queries of each head first."""
    b, a, s, _ = q.shape
    rows = (
        min(QUERIES, max(s, 1)) if causal else min(max(s, 1), max(1, 4 * ELEMENTS // max(keys, 1)))
    )
    heads = max(1, 2 * ELEMENTS // max(rows * keys, 1))
    starts = range(0, s, rows)
    for batch in range(b):
        for first in range(0, a, heads):
            for start in reversed(starts):
                stop = min(start + rows, s)
                seen = min(stop, keys) if causal else keys
                yield (batch, slice(first, first + heads)), slice(start, stop), slice(0, seen)


def _hide_the_future(scores: np.ndarray, first: int) -> None:
    """-inf where a key comes after its query; query row 0 of the block is number `first`."""
    edge = scores[..., first:]
    edge += np.triu(np.full(edge.shape[-2:], -np.inf, scores.dtype), 1)


def _normalise(scores: np.ndarray, masked: bool) -> None:
    """Softmax in place; a row of -inf becomes zeros (only a mask makes such rows)."""
    top = scores.max(-1, keepdims=True)
    if masked:
        top[np.isneginf(top)] = 0
    scores -= top
    np.exp(scores, out=scores)
    total = scores.sum(-1, keepdims=True)
    if masked:
        total[total == 0] = 1
    scores /= total


def forward(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, causal: bool, scale: float,
    mask: np.ndarray | None = None, drop: tuple[np.ndarray, float] | None = None,
) -> np.ndarray:  # fmt: skip
    """q (b, a, s, d), k and v (b, a, t, d), any strides; fills out (b, a, s, d).

    mask (b, a, s, t) is added to the scores; drop is (what is kept (b, a, s, t), 1/(1-p)).
    Returns the probabilities (b, a, s, t), unset where a causal query does not look.
    """
    p = np.empty_like(q, shape=(*q.shape[:3], k.shape[2]))
    if not k.shape[2]:
        out[...] = 0
        return p
    for at, queries, keys in _tiles(q, k.shape[2], causal):
        tile = p[at][:, queries, keys]
        np.matmul(q[at][:, queries], k[at][:, keys].swapaxes(-1, -2), out=tile)
        tile *= scale
        if causal:
            _hide_the_future(tile, queries.start)
        if mask is not None:
            tile += mask[at][:, queries, keys]
        _normalise(tile, mask is not None)
        seen = tile if drop is None else tile * (drop[0][at][:, queries, keys] * drop[1])
        np.matmul(seen, v[at][:, keys], out=out[at][:, queries])
    return p


def backward(
    g: np.ndarray, q: np.ndarray, k: np.ndarray, v: np.ndarray, out: np.ndarray, p: np.ndarray,
    dq: np.ndarray, dk: np.ndarray, dv: np.ndarray, causal: bool, scale: float,
    drop: tuple[np.ndarray, float] | None = None, dmask: np.ndarray | None = None,
) -> None:  # fmt: skip
    """Fills the cotangents dq, dk, dv (and dmask) from g, the cotangent of out (b, a, s, d)."""
    length = q.shape[2]
    if not causal or length < k.shape[2]:
        dk[:, :, length if causal else 0 :] = 0  # keys that no query sees
        dv[:, :, length if causal else 0 :] = 0
    for at, queries, keys in _tiles(q, k.shape[2], causal):
        gt, pt = g[at][:, queries], p[at][:, queries, keys]
        ds = np.matmul(gt, v[at][:, keys].swapaxes(-1, -2))
        seen = pt
        if drop is not None:
            kept = drop[0][at][:, queries, keys] * drop[1]
            ds *= kept
            seen = pt * kept
        ds -= np.einsum("hqd,hqd->hq", gt, out[at][:, queries])[..., None]
        ds *= pt
        if dmask is not None:
            dmask[at][:, queries, keys] = ds
        ds *= scale
        np.matmul(ds, k[at][:, keys], out=dq[at][:, queries])
        fresh = queries.stop == length  # the last queries see every key: they come first
        _put(dk[at][:, keys], ds.swapaxes(-1, -2), q[at][:, queries], fresh)
        _put(dv[at][:, keys], seen.swapaxes(-1, -2), gt, fresh)


def _put(into: np.ndarray, a: np.ndarray, b: np.ndarray, fresh: bool) -> None:
    if fresh:
        np.matmul(a, b, out=into)
    else:
        into += np.matmul(a, b)
