"""Scaled dot-product attention (Vaswani et al. 2017, 3.2.1): softmax(q kᵀ · scale + mask) v.

The ladder, for each head s queries, t keys and d numbers in each:

- formula: whole arrays, an operation at a time. The scores (s, t) are in memory: forward moves
  about 12·s·t numbers, backward 16·s·t, beside 2·(s + t)·d and 4·(s + t)·d of the arrays.
- loop: flash attention (Dao et al. 2022). A tile, a block of queries by a block of keys of some
  heads, stays in the cache: BLAS multiplies, and a loop does all that happens to a score in one
  visit. Forward goes along the keys with a running maximum and sum (Milakov & Gimelshein 2018): if
  a larger score turns up, what the earlier keys gave is scaled down. It leaves the output and the
  log-sum-exp of each query, from which backward makes any tile of probabilities again. So memory
  is O(s), for seven products instead of six. Causal tiles after their queries are not touched.
  q, g and out are read once, k and v once for each block of queries.
- tile program: the same with tiles in registers (flash_triton.py, flash_backward.py).

A mask is added to the scores: -inf hides a key, and a query that sees nothing gives zeros. Dropout
multiplies the probabilities after they are normalised.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator

from . import arrays as xp
from . import flash_backward, flash_triton
from .dispatch import formula
from .elementary import exp_negative, fma, row_dot, row_max
from .flash_plan import served
from .half_precision import wide
from .loops import Bits, F, Out, helper, loop

Array = xp.ndarray
Drop = tuple[Array, float] | None  # which probabilities are kept (b, a, s, t), and 1/(1 - p)

ELEMENTS = 1 << 16  # scores of a tile: two tiles and the rows beside them fit a cache of 1 MiB
FEWEST, MOST = 64, 256  # queries of a block: few skip more of the masked half, many suit BLAS
KEYS = 512  # of a block
NO_DROP = xp.empty((0, 0, 0, 0), xp.bool_), 1.0
STEP = 32  # scores that a loop takes at once: a row of whole steps has no slow rest


# The formula


@formula
def forward(
    q: Array, k: Array, v: Array, out: Array, causal: bool, scale: float,
    mask: Array | None = None, drop: Drop = None,
) -> Array:  # fmt: skip
    """q (b, a, s, d), k (b, a / group, t, d), v (b, a / group, t, e); fills out (b, a, s, e).

    Returns the log-sum-exp of each query's scores (b, a, s): -inf where it sees nothing, and out
    is 0. mask (b, a, s, t) is added to the scores. Causal: query i sees keys 0..i. Any strides.
    """
    scores = _scores(q, k, causal, scale, mask)
    top = xp.highest(scores, -1, keepdims=True)
    e = xp.exp(scores - xp.where(xp.isneginf(top), 0, top))
    total = e.sum(-1, keepdims=True)
    total[total == 0] = 1  # top is -inf there
    out[...] = xp.matmul(_dropped(e / total, drop), _repeated(v, q))
    return (top + xp.log(total))[..., 0]


@formula
def backward(
    g: Array, q: Array, k: Array, v: Array, out: Array, lse: Array, dq: Array, dk: Array, dv: Array,
    causal: bool, scale: float, mask: Array | None = None, dmask: Array | None = None,
    drop: Drop = None,
) -> None:  # fmt: skip
    """Fills the cotangents dq, dk, dv (and dmask) from g, the cotangent of out (b, a, s, e).

    With p the probabilities, dp = g vᵀ and the cotangent of the scores ds = p · (dp - Σ g · out):
    dq = ds k · scale, dk = dsᵀ q · scale, dv = pᵀ g. (Σ g · out is Σ p · dp over a row.)
    """
    p = xp.exp(_scores(q, k, causal, scale, mask) - xp.where(xp.isneginf(lse), 0, lse)[..., None])
    g, q, wide_k, wide_v = wide(g), wide(q), _repeated(k, q), _repeated(v, q)
    dp = _dropped(xp.matmul(g, wide_v.swapaxes(-1, -2)), drop)
    ds = p * (dp - (g * wide(out)).sum(-1, keepdims=True))
    dq[...] = xp.matmul(ds, wide_k) * scale
    dk[...] = _of_groups(xp.matmul(ds.swapaxes(-1, -2), q) * scale, k)
    dv[...] = _of_groups(xp.matmul(_dropped(p, drop).swapaxes(-1, -2), g), v)
    if dmask is not None:
        dmask[...] = ds


def _scores(q, k, causal, scale, mask):
    scores = xp.matmul(wide(q), _repeated(k, q).swapaxes(-1, -2)) * scale
    if causal:
        scores = xp.where(xp.tril(xp.ones_like(scores, xp.bool_)), scores, -xp.inf)
    return scores if mask is None else scores + wide(mask)


def _repeated(x, q):
    """Keys or values, each once for every query head of its group."""
    return xp.repeat(wide(x), q.shape[1] // max(x.shape[1], 1), 1)


def _of_groups(x, k):
    """Cotangents (b, a, t, d) added up over the query heads that share a head of k."""
    return x.reshape(*k.shape[:2], -1, *x.shape[2:]).sum(2) if x.size else 0


def _dropped(p, drop):
    return p if drop is None else p * (drop[0] * p.dtype.type(drop[1]))


def merge(out1: Array, lse1: Array, out2: Array, lse2: Array) -> tuple[Array, Array]:
    """Attention to two sets of keys from attention to each: out (b, a, s, e), lse (b, a, s)."""
    lse = xp.logaddexp(lse1, lse2)
    base = xp.where(xp.isneginf(lse), 0, lse)  # of who sees nothing in either: 0 · 0 + 0 · 0
    one, two = (xp.exp(x - base).astype(out1.dtype)[..., None] for x in (lse1, lse2))
    return one * out1 + two * out2, lse


# The loop: what happens to a tile of scores between two products


@helper()
def seen_of(ahead, i, c):
    """How many of a tile's c keys query i of a tile sees; `ahead` is how far its first query is
    ahead of its first key."""
    return min(max(ahead + i + 1, 0), c)


@helper()
def whole_steps(seen, c):
    return min((seen + STEP - 1) // STEP * STEP, c)


@helper(sums=True)
def exponentials(x, scale, base):
    """exp(x · scale - base) in place, and their sum."""
    total = 0.0
    for j in range(len(x)):
        x[j] = exp_negative(fma(x[j], scale, -base))
        total += x[j]
    return total


@loop
def softmax_tile(
    x: Out[:, :, :, ::1], ahead: int, scale: float, mask: F[:, :, :, :], keep: Bits[:, :, :, :],
    factor: float, top: Out[:, :, :], total: Out[:, :, :], fade: Out[:, :, ::1],
):  # fmt: skip
    """Products x (b, a, r, c) of r queries and c keys become probabilities among the keys so far.

    top and total (b, a, r): the largest score so far, and Σ exp(score - top). fade: the factor for
    the probabilities of the keys before these.
    """
    b, a, r, c = x.shape
    for n in range(b):
        for h in range(a):
            for i in range(r):
                row, factors = x[n, h, i], scale
                seen = seen_of(ahead, i, c)
                end = whole_steps(seen, c)
                if mask.size or scale <= 0.0:  # the largest product is not the largest score
                    for j in range(seen):
                        row[j] *= scale
                        if mask.size:
                            row[j] += mask[n, h, i, j]
                    factors = 1.0
                for j in range(seen, end):
                    row[j] = -math.inf
                before, high = top[n, h, i], row_max(row[:end]) * factors
                high = before if high <= before else high  # NaN stays
                base = 0.0 if high == -math.inf else high
                past = total[n, h, i] * exp_negative(before - base)
                now = past + exponentials(row[:end], factors, base)
                share = 1.0 if now == 0.0 else 1.0 / now
                top[n, h, i], total[n, h, i], fade[n, h, i] = high, now, past * share
                for j in range(end):
                    row[j] *= share
                if keep.size:
                    for j in range(seen):
                        row[j] *= factor if keep[n, h, i, j] else 0.0
                for j in range(end, c):
                    row[j] = 0.0


@loop
def blend_rows(part: F[:, :, :, ::1], fade: F[:, :, ::1], out: Out[:, :, :, ::1]):
    """out = out · fade + part."""
    b, a, r, e = part.shape
    for n in range(b):
        for h in range(a):
            for i in range(r):
                for j in range(e):
                    out[n, h, i, j] = out[n, h, i, j] * fade[n, h, i] + part[n, h, i, j]


@helper()
def row_slopes(p, ds, scale, base, mean):
    for j in range(len(p)):
        p[j] = exp_negative(fma(p[j], scale, -base))
        ds[j] = p[j] * (ds[j] - mean) * scale


@loop
def slopes_tile(
    p: Out[:, :, :, ::1], ds: Out[:, :, :, ::1], ahead: int, scale: float, mask: F[:, :, :, :],
    keep: Bits[:, :, :, :], factor: float, lse: F[:, :, :], mean: F[:, :, :],
    dmask: Out[:, :, :, :],
):  # fmt: skip
    """p: products of queries and keys, which become probabilities, those that are dropped 0.
    ds: products of g and values, which become cotangents of the products. mean: Σ g · out."""
    b, a, r, c = p.shape
    for n in range(b):
        for h in range(a):
            for i in range(r):
                u, du, base = p[n, h, i], ds[n, h, i], lse[n, h, i]
                seen = seen_of(ahead, i, c)
                end = whole_steps(seen, c)
                base = 0.0 if base == -math.inf else base
                if mask.size or keep.size:
                    for j in range(seen):
                        added = mask[n, h, i, j] if mask.size else 0.0
                        u[j] = exp_negative(u[j] * scale + added - base)
                        kept = 1.0
                        if keep.size:
                            kept = factor if keep[n, h, i, j] else 0.0
                        du[j] = u[j] * (du[j] * kept - mean[n, h, i])
                        u[j] *= kept
                        if dmask.size:
                            dmask[n, h, i, j] = du[j]
                        du[j] *= scale
                else:
                    row_slopes(u[:end], du[:end], scale, base, mean[n, h, i])
                for j in range(seen, c):
                    u[j], du[j] = 0.0, 0.0


@loop
def row_dots(x: F[:, ::1], y: F[:, ::1], dots: Out[::1]):
    for i in range(len(x)):
        dots[i] = row_dot(x[i], y[i])


# The loop: products between, tile after tile


class Room:
    """Arrays of any shape in memory that is used again, one for each name; the largest first."""

    def __init__(self, like: Array):
        self.memory: defaultdict[str, xp.Buffer] = defaultdict(lambda: xp.Buffer(like))

    def __call__(self, name: str, shape: tuple[int, ...]) -> Array:
        return self.memory[name](*shape)

    def product(self, name: str, x: Array, y: Array) -> Array:
        return xp.matmul(x, y, out=self(name, (*x.shape[:-1], y.shape[-1])))

    def put(self, into: Array, x: Array, y: Array, fresh: bool) -> None:
        """into = x y, or += x y."""
        if fresh:
            xp.matmul(x, y, out=into)
        else:
            into += self.product("part", x, y)

    def home(self, name: str, x: Array, often: bool) -> Array:
        """Where to add up what belongs into x: x itself, but memory without gaps if `often`."""
        return self(name, x.shape) if often and not _dense(x) else x


def _moved(x: Array, to: Array) -> Array:
    if to is not x:
        to[...] = x
    return to


def _dense(x: Array) -> bool:
    return x.strides[2:] == (x.shape[3] * x.itemsize, x.itemsize)


def blocks(stop: int, size: int) -> list[slice]:
    return [slice(start, min(start + size, stop)) for start in range(0, stop, size)]


def tiles(s: int, t: int, causal: bool) -> list[tuple[slice, list[slice]]]:
    """Blocks of queries, and of each the blocks of keys that it sees. The last queries, which see
    the most keys, come first: the first tile is the largest, and backward meets every key there."""
    size = min(MOST, max(FEWEST, s // 8 if causal else s))
    rows = [slice(max(stop - size, 0), stop) for stop in range(s, 0, -size)]
    return [(r, blocks(min(r.stop, t) if causal else t, KEYS)) for r in rows]


def heads(
    q: Array, k: Array, cuts: list[tuple[slice, list[slice]]]
) -> Iterator[tuple[tuple, list[tuple]]]:
    """Where the keys of some heads lie, and the queries of each member of their groups: so many
    heads that their tiles together have about ELEMENTS scores."""
    rows, along = cuts[0]
    most = max(1, ELEMENTS // ((rows.stop - rows.start) * (along[0].stop - along[0].start)))
    (b, few), group = k.shape[:2], q.shape[1] // max(k.shape[1], 1)
    for batch in blocks(b, max(1, most // max(few, 1))):
        for of in blocks(few, most):
            start, stop = of.start * group, of.stop * group
            yield (batch, of), [(batch, slice(start + i, stop, group)) for i in range(group)]


def _or_none(q: Array, *arrays: Array | None) -> list[Array]:
    """Loops want an array without elements where there is none."""
    return [xp.empty_like(q, shape=(0, 0, 0, 0), order="C") if x is None else x for x in arrays]


def _cut(x: Array, at: tuple, rows: slice, keys: slice) -> Array:
    return x[at][:, :, rows, keys] if x.size else x


@forward.version("numba")
def _forward_loop(q, k, v, out, causal, scale, mask=None, drop=None):
    (s, t), like = (q.shape[2], k.shape[2]), {"shape": q.shape[:3], "order": "C"}
    top, total = xp.full_like(q, -xp.inf, **like), xp.zeros_like(q, **like)
    if not s * t:
        out[...] = 0
        return top
    (mask,), (keep, factor) = _or_none(q, mask), drop or NO_DROP
    cuts, room = tiles(s, t, causal), Room(q)
    for of, members in heads(q, k, cuts):
        kt, vs = k[of].swapaxes(-1, -2), v[of]
        for at in members:
            for rows, along in cuts:
                qs, here = q[at][:, :, rows], out[at][:, :, rows]
                home = here if len(along) == 1 else room("out", here.shape)
                for keys in along:
                    x = room.product("scores", qs, kt[..., keys])
                    softmax_tile(
                        x, rows.start - keys.start if causal else t, scale,
                        _cut(mask, at, rows, keys), _cut(keep, at, rows, keys), factor,
                        top[at][:, :, rows], total[at][:, :, rows],
                        fade := room("fade", x.shape[:3]),
                    )  # fmt: skip
                    if keys.start == 0:
                        xp.matmul(x, vs[:, :, keys], out=home)
                    else:
                        blend_rows(room.product("part", x, vs[:, :, keys]), fade, home)
                _moved(home, here)
    with xp.errstate(divide="ignore"):  # the log of 0, for a query that sees nothing
        return xp.add(top, xp.log(total, out=total), out=total)


@backward.version("numba")
def _backward_loop(
    g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask=None, dmask=None, drop=None
):
    s, t = q.shape[2], k.shape[2]
    seen = min(s, t) if causal else t * (s > 0)
    dk[:, :, seen:], dv[:, :, seen:] = 0, 0  # keys that no query sees
    if not s * t:
        dq[...] = 0
        return
    mean, (mask, dmask), (keep, factor) = _means(g, out), _or_none(q, mask, dmask), drop or NO_DROP
    cuts, room = tiles(s, t, causal), Room(q)
    often = len(cuts) > 1
    for of, members in heads(q, k, cuts):
        ks, kt, vt = k[of], k[of].swapaxes(-1, -2), v[of].swapaxes(-1, -2)
        own_k, own_v = dk[of][:, :, :seen], dv[of][:, :, :seen]
        to_k, to_v = room.home("dk", own_k, often), room.home("dv", own_v, often)
        for member, at in enumerate(members):
            for rows, along in cuts:
                qs, gs, here = (x[at][:, :, rows] for x in (q, g, dq))
                to_q = room.home("dq", here, len(along) > 1)
                fresh = member == 0 and rows.stop == s
                for keys in along:
                    p = room.product("p", qs, kt[..., keys])
                    ds = room.product("ds", gs, vt[..., keys])
                    slopes_tile(
                        p, ds, rows.start - keys.start if causal else t, scale,
                        _cut(mask, at, rows, keys), _cut(keep, at, rows, keys), factor,
                        lse[at][:, :, rows], mean[at][:, :, rows], _cut(dmask, at, rows, keys),
                    )  # fmt: skip
                    room.put(to_v[:, :, keys], p.swapaxes(-1, -2), gs, fresh)
                    room.put(to_k[:, :, keys], ds.swapaxes(-1, -2), qs, fresh)
                    room.put(to_q, ds, ks[:, :, keys], keys.start == 0)
                _moved(to_q, here)
        _moved(to_k, own_k)
        _moved(to_v, own_v)


def _means(g, out):
    """Σ g · out of each query: (b, a, s, e) twice -> (b, a, s), in the order of memory."""
    packed = out.strides[1] < out.strides[2]  # the heads of a token lie side by side
    if packed:
        g, out = g.swapaxes(1, 2), out.swapaxes(1, 2)
    found = xp.empty_like(g, shape=g.shape[:3], order="C")
    g, out = (xp.ascontiguousarray(x).reshape(found.size, g.shape[3]) for x in (g, out))
    row_dots(g, out, found.reshape(-1))
    return found.swapaxes(1, 2) if packed else found


# The tile program


@forward.version("triton")
def _forward_triton(q, k, v, out, causal, scale, mask=None, drop=None):
    if drop is not None or not served(q, v):
        return forward.plain(q)(q, k, v, out, causal, scale, mask, drop)
    return flash_triton.forward(q, k, v, out, causal, scale, mask)


@backward.version("triton")
def _backward_triton(
    g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask=None, dmask=None, drop=None
):
    others = out, lse, dq, dk, dv, causal, scale, mask, dmask
    if drop is not None or not served(q, v):
        backward.plain(g)(g, q, k, v, *others, drop)
    else:
        flash_backward.backward(g, q, k, v, *others)
