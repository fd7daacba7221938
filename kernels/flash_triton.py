"""Flash attention on a GPU (Dao 2023), forward: a block of queries a program.

The program keeps its queries, their sums and maxima and their output on the chip, and goes along
the keys: q and out move once; k and v once for each block of queries, but those of a head run
together and share them in L2. Tiles are masked only on the causal edge, or on that of the arrays;
those beyond it are not visited. Backward: flash_backward.

In these kernels rows are queries, `first` is the first row or key of a tile, an array is (pointer
or descriptor, strides in numbers of batch, head and row), and scores are in units of log(2), as
exp2 takes them.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from . import flash_plan as plan
from .flash_plan import LOG2E
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched


@triton_kernel
def tile(
    of, batch, head, first, count, ROWS: tl.constexpr, D: tl.constexpr, BD: tl.constexpr,
    EDGE: tl.constexpr, WIDEN: tl.constexpr, BOXED: tl.constexpr,
):  # fmt: skip
    """Rows `first` and on of a head (count, D), zeros beyond: (ROWS, BD)."""
    if BOXED:
        x = of[0].load([batch, head, first, 0]).reshape(ROWS, BD)
    else:
        i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, BD)[None, :]
        at = head_of(of, batch, head) + tl.cast(first, tl.int64) * of[3] + (i * of[3] + j)
        if EDGE:
            x = tl.load(at, mask=(i < count - first) & (j < D), other=0.0)
        elif D < BD:
            x = tl.load(at, mask=j < D, other=0.0)
        else:
            x = tl.load(at)
    return x.to(tl.float32) if WIDEN else x


@triton_kernel
def head_of(of, batch, head):
    return of[0] + tl.cast(batch, tl.int64) * of[1] + tl.cast(head, tl.int64) * of[2]


@triton_kernel
def put(x, of, batch, head, first, count, d, ROWS: tl.constexpr, BD: tl.constexpr):
    """x (ROWS, BD) to rows `first` and on of a head (count, d)."""
    i, j = tl.arange(0, ROWS)[:, None], tl.arange(0, BD)[None, :]
    at = head_of(of, batch, head) + tl.cast(first, tl.int64) * of[3] + (i * of[3] + j)
    tl.store(at, x.to(of[0].dtype.element_ty), mask=(i < count - first) & (j < d))


@triton_kernel
def edged(
    x, row, key, s, t, mask, CAUSAL: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """Scores x of BM rows by BN keys (TURNED: by rows) and what is added to them; -inf where a row
    does not see a key. mask is (pointer to those of a head, stride of rows)."""
    rows, keys = row + tl.arange(0, BM), key + tl.arange(0, BN)
    rows, keys = (rows[None, :], keys[:, None]) if TURNED else (rows[:, None], keys[None, :])
    seen = keys < t
    if MASKED:
        corner = mask[0] + tl.cast(row, tl.int64) * mask[1] + key
        at = corner + ((rows - row) * mask[1] + (keys - key))
        added = tl.load(at, mask=seen & (rows < s), other=0.0)
        x += added.to(tl.float32) * 1.4426950408889634
    if CAUSAL and TURNED:  # of keys that are not there nothing is stored
        seen = keys <= rows
    elif CAUSAL:
        seen = seen & (keys <= rows)
    return tl.where(seen, x, float("-inf"))


@triton_kernel
def _attend(
    acc, total, top, q, of_k, of_v, mask, batch, head, row, start, stop, s, t, scale,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, NEGATIVE: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, BOXED: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr,
):  # fmt: skip
    """Queries along the keys start..stop: sums of exponentials of scores less the highest one."""
    for first in range(start, stop, BN):
        k = tile(of_k, batch, head, first, t, BN, D, BD, EDGE, WIDEN, BOXED)
        x = tl.dot(q, k.T, input_precision=PRECISION)
        if EDGE:
            x = edged(x * scale, row, first, s, t, mask, CAUSAL, MASKED, BM, BN, False)
            high = tl.maximum(top, tl.max(x, 1))
            base = tl.where(high == float("-inf"), 0.0, high) if MASKED else high
            p = tl.exp2(x - base[:, None])
        else:
            high = tl.maximum(top, (tl.min(x, 1) if NEGATIVE else tl.max(x, 1)) * scale)
            base = high
            p = tl.exp2(x * scale - base[:, None])
        shrink = tl.exp2(top - base)
        total = total * shrink + tl.sum(p, 1)
        v = tile(of_v, batch, head, first, t, BN, E, BE, EDGE, WIDEN, BOXED)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None], input_precision=PRECISION)
        top = high
    return acc, total, top


@triton_kernel
def _forward_kernel(
    q, k, v, out, lse, mask, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch, v_head, v_row,
    out_batch, out_head, out_row, mask_batch, mask_head, mask_row, heads, group, s, t,
    scale, CAUSAL: tl.constexpr, NEGATIVE: tl.constexpr, PRECISION: tl.constexpr,
    WIDEN: tl.constexpr, BOXED: tl.constexpr, D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr,
    BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    MASKED: tl.constexpr = mask is not None
    block, line = tl.program_id(0) % tl.cdiv(s, BM), tl.program_id(0) // tl.cdiv(s, BM)
    if CAUSAL:
        block = tl.cdiv(s, BM) - 1 - block  # the longest first, so that the last to end are short
    batch, head, start = line // heads, line % heads, block * BM
    of_k, of_v, few = (k, k_batch, k_head, k_row), (v, v_batch, v_head, v_row), head // group
    rows = start + tl.arange(0, BM)
    x = tile((q, q_batch, q_head, q_row), batch, head, start, s, BM, D, BD, True, WIDEN, False)
    acc, total = tl.zeros((BM, BE), tl.float32), tl.zeros((BM,), tl.float32)
    top = tl.full((BM,), float("-inf"), tl.float32)
    stop, whole = t, t // BN * BN
    if CAUSAL:
        stop, whole = tl.minimum(t, start + BM), tl.minimum(whole, start // BN * BN)
    if MASKED:
        whole = 0
        of_mask = (head_of((mask, mask_batch, mask_head), batch, head), mask_row)
    else:
        of_mask = (mask, mask_row)
        acc, total, top = _attend(
            acc, total, top, x, of_k, of_v, of_mask, batch, few, start, 0, whole, s, t, scale,
            False, CAUSAL, MASKED, NEGATIVE, PRECISION, WIDEN, BOXED, D, E, BD, BE, BM, BN,
        )  # fmt: skip
    acc, total, top = _attend(
        acc, total, top, x, of_k, of_v, of_mask, batch, few, start, whole, stop, s, t, scale, True,
        CAUSAL, MASKED, NEGATIVE, PRECISION, WIDEN, BOXED, D, E, BD, BE, BM, BN,
    )  # fmt: skip
    if MASKED:
        total = tl.where(total == 0.0, 1.0, total)
    of_out = (out, out_batch, out_head, out_row)
    put(acc / total[:, None], of_out, batch, head, start, s, E, BM, BE)
    logs = (top + tl.log2(total)) * 0.6931471805599453
    tl.store(lse + tl.cast(line, tl.int64) * s + rows, logs, mask=rows < s)


def forward(
    q: xp.ndarray, k: xp.ndarray, v: xp.ndarray, out: xp.ndarray, causal: bool, scale: float,
    mask: xp.ndarray | None = None,
) -> xp.ndarray:  # fmt: skip
    """As flash.forward; the log-sum-exp in float32."""
    (b, heads, s, d), (_, few, t, e) = q.shape, v.shape
    lse = xp.empty_like(q, xp.float32, "C", shape=(b, heads, s))
    if not t:
        out[...], lse[...] = 0, -xp.inf
        return lse
    q, k, v, home = plan.rows(q), plan.rows(k), plan.rows(v), plan.room(out)
    mask = mask if mask is None else plan.rows(mask)
    kind, tile = plan.choose("forward", max(d, e), plan.kind_of([k, v], mask))
    of_k, of_v = (plan.operand(x, kind, tile.BN, plan.width(n)) for x, n in ((k, d), (v, e)))
    _forward_kernel[(b * heads * -(-s // tile.BM),)](
        q, of_k, of_v, home, lse, mask,
        *plan.strides(q, k, v, home, mask), heads, heads // few, s, t, scale * LOG2E,
        NEGATIVE=scale < 0, **plan.constants(q, v, causal, kind, tile),
    )  # fmt: skip
    plan.settle([home], [out])
    return lse
