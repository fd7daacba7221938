"""Flash attention on a GPU (Dao 2023), backward: dk and dv by blocks of keys, dq by blocks of rows.

A program that owns a block of keys goes along the queries that see it; one that owns a block of
queries goes along the keys. So probabilities are made twice, seven products where five would do;
but nothing is added up across programs, and the same bits come out each time. q, g (k, v) move once
for each block of keys (queries), from L2 where the programs of a head run together.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from . import flash_plan as plan
from .flash_plan import LOG2E
from .flash_triton import edged, head_of, put, tile
from .launch import triton_kernel

tl: Any = None  # Triton's language, once a kernel is launched

NUMBERS = 4096  # of g and out a program of _delta_kernel: 32 a thread
PADDED = 128  # numbers of queries go on to a multiple: no tile need ask how many there are


@triton_kernel
def _delta_kernel(
    g, out, lse, delta, base, g_batch, g_head, g_row, out_batch, out_head, out_row, heads, s,
    padded, WIDEN: tl.constexpr, E: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr,
):  # fmt: skip
    """Σ g·out of each query; and its log-sum-exp in units of log(2), inf if it sees nothing or is
    not there, so that its probabilities become 0: each (batches · heads, padded)."""
    blocks = tl.cdiv(padded, BM)
    line, start = tl.program_id(0) // blocks, tl.program_id(0) % blocks * BM
    batch, head, rows = line // heads, line % heads, start + tl.arange(0, BM)
    of_g, of_out = (g, g_batch, g_head, g_row), (out, out_batch, out_head, out_row)
    x = tile(of_g, batch, head, start, s, BM, E, BE, True, WIDEN, False).to(tl.float32)
    y = tile(of_out, batch, head, start, s, BM, E, BE, True, WIDEN, False).to(tl.float32)
    logs = tl.load(lse + tl.cast(line, tl.int64) * s + rows, mask=rows < s, other=float("-inf"))
    logs = tl.where(logs == float("-inf"), float("inf"), logs * 1.4426950408889634)
    at = tl.cast(line, tl.int64) * padded + rows
    tl.store(base + at, logs, mask=rows < padded)
    tl.store(delta + at, tl.sum(x * y, 1), mask=rows < padded)


@triton_kernel
def _along_queries(
    dk, dv, x, y, of_q, of_g, delta, base, of_mask, batch, few, group, heads, key, start, stop, s,
    t, padded, scale,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    WIDEN: tl.constexpr, BOXED: tl.constexpr, EVEN: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
    BD: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Keys x and values y along the queries start..stop of every head of the group that shares
    them: dk (before the factor of scores) and dv."""
    for member in range(group):
        head = few * group + member
        at = (tl.cast(batch, tl.int64) * heads + head) * padded
        mask = (head_of(of_mask, batch, head), of_mask[3]) if MASKED else (of_mask[0], of_mask[3])
        # of wide heads, what is hoisted out of this loop takes registers: Triton 3.6 spills
        for first in tl.range(start, stop, BM, disable_licm=BD > 64):
            rows = first + tl.arange(0, BM)
            q = tile(of_q, batch, head, first, s, BM, D, BD, not EVEN, WIDEN, BOXED)
            g = tile(of_g, batch, head, first, s, BM, E, BE, not EVEN, WIDEN, BOXED)
            p = tl.dot(x, q.T, input_precision=PRECISION) * scale
            if EDGE:
                p = edged(p, first, key, s, t, mask, CAUSAL, MASKED, BM, BN, True)
            p = tl.exp2(p - tl.load(base + at + rows)[None, :])
            dv = tl.dot(p.to(g.dtype), g, dv, input_precision=PRECISION)
            ds = tl.dot(y, g.T, input_precision=PRECISION)
            ds = p * (ds - tl.load(delta + at + rows)[None, :])
            dk = tl.dot(ds.to(q.dtype), q, dk, input_precision=PRECISION)
    return dk, dv


@triton_kernel
def _keys_kernel(
    q, k, v, g, delta, base, dk, dv, mask, q_batch, q_head, q_row, k_batch, k_head, k_row, v_batch,
    v_head, v_row, g_batch, g_head, g_row, dk_batch, dk_head, dk_row, dv_batch, dv_head, dv_row,
    mask_batch, mask_head, mask_row, heads, group, s, t, padded, scale, factor,
    CAUSAL: tl.constexpr, PRECISION: tl.constexpr, WIDEN: tl.constexpr, BOXED: tl.constexpr,
    EVEN: tl.constexpr, D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr,
    BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dk and dv of a block of keys."""
    MASKED: tl.constexpr = mask is not None
    line, start = tl.program_id(0) // tl.cdiv(t, BN), tl.program_id(0) % tl.cdiv(t, BN) * BN
    batch, few = line // (heads // group), line % (heads // group)
    of_q, of_g = (q, q_batch, q_head, q_row), (g, g_batch, g_head, g_row)
    of_mask = (mask, mask_batch, mask_head, mask_row)
    x = tile((k, k_batch, k_head, k_row), batch, few, start, t, BN, D, BD, True, WIDEN, False)
    y = tile((v, v_batch, v_head, v_row), batch, few, start, t, BN, E, BE, True, WIDEN, False)
    to_k, to_v = tl.zeros((BN, BD), tl.float32), tl.zeros((BN, BE), tl.float32)
    first, whole = 0, 0
    if CAUSAL:  # rows on the edge, all of whose tiles together are as long as the block
        first = start // BM * BM
        whole = tl.minimum(tl.cdiv(start + BN - 1, BM), tl.cdiv(s, BM)) * BM
    if MASKED:
        whole = s
    if CAUSAL or MASKED:
        to_k, to_v = _along_queries(
            to_k, to_v, x, y, of_q, of_g, delta, base, of_mask, batch, few, group, heads, start,
            first, whole, s, t, padded, scale, True, CAUSAL, MASKED, PRECISION, WIDEN, BOXED, EVEN,
            D, E, BD, BE, BM, BN,
        )  # fmt: skip
    if not MASKED:
        to_k, to_v = _along_queries(
            to_k, to_v, x, y, of_q, of_g, delta, base, of_mask, batch, few, group, heads, start,
            whole, s, s, t, padded, scale, False, CAUSAL, MASKED, PRECISION, WIDEN, BOXED, EVEN, D,
            E, BD, BE, BM, BN,
        )  # fmt: skip
    put(to_k * factor, (dk, dk_batch, dk_head, dk_row), batch, few, start, t, D, BN, BD)
    put(to_v, (dv, dv_batch, dv_head, dv_row), batch, few, start, t, E, BN, BE)


@triton_kernel
def _along_keys(
    dq, x, y, logs, sums, of_k, of_v, mask, dmask, batch, head, row, start, stop, s, t, scale,
    EDGE: tl.constexpr, CAUSAL: tl.constexpr, MASKED: tl.constexpr, PRECISION: tl.constexpr,
    WIDEN: tl.constexpr, BOXED: tl.constexpr, D: tl.constexpr, E: tl.constexpr, BD: tl.constexpr,
    BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """Queries x and cotangents y along the keys start..stop: dq before the factor of scores."""
    for first in range(start, stop, BN):
        k = tile(of_k, batch, head, first, t, BN, D, BD, EDGE, WIDEN, BOXED)
        v = tile(of_v, batch, head, first, t, BN, E, BE, EDGE, WIDEN, BOXED)
        p = tl.dot(x, k.T, input_precision=PRECISION) * scale
        if EDGE:
            p = edged(p, row, first, s, t, mask, CAUSAL, MASKED, BM, BN, False)
        p = tl.exp2(p - logs[:, None])
        ds = p * (tl.dot(y, v.T, input_precision=PRECISION) - sums[:, None])
        if dmask is not None:
            put(ds, (dmask + first, 0, 0, t), 0, 0, row, s, t - first, BM, BN)
        dq = tl.dot(ds.to(k.dtype), k, dq, input_precision=PRECISION)
    return dq


@triton_kernel
def _queries_kernel(
    q, k, v, g, delta, base, dq, mask, dmask, q_batch, q_head, q_row, k_batch, k_head, k_row,
    v_batch, v_head, v_row, g_batch, g_head, g_row, dq_batch, dq_head, dq_row, mask_batch,
    mask_head, mask_row, heads, group, s, t, padded, scale, factor, CAUSAL: tl.constexpr,
    PRECISION: tl.constexpr, WIDEN: tl.constexpr, BOXED: tl.constexpr, D: tl.constexpr,
    E: tl.constexpr, BD: tl.constexpr, BE: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr,
):  # fmt: skip
    """dq of a block of queries and, if dmask (b, heads, s, t) is there, that of their scores."""
    MASKED: tl.constexpr = mask is not None
    block, line = tl.program_id(0) % tl.cdiv(s, BM), tl.program_id(0) // tl.cdiv(s, BM)
    if CAUSAL:
        block = tl.cdiv(s, BM) - 1 - block  # the longest first, so that the last to end are short
    batch, head, start = line // heads, line % heads, block * BM
    of_k, of_v, few = (k, k_batch, k_head, k_row), (v, v_batch, v_head, v_row), head // group
    x = tile((q, q_batch, q_head, q_row), batch, head, start, s, BM, D, BD, True, WIDEN, False)
    y = tile((g, g_batch, g_head, g_row), batch, head, start, s, BM, E, BE, True, WIDEN, False)
    at = tl.cast(line, tl.int64) * padded + start + tl.arange(0, BM)
    logs, sums = tl.load(base + at), tl.load(delta + at)
    to_q = tl.zeros((BM, BD), tl.float32)
    stop, whole = t, t // BN * BN
    if CAUSAL:
        stop, whole = tl.minimum(t, start + BM), tl.minimum(whole, start // BN * BN)
    if MASKED:
        whole = 0
        of_mask = (head_of((mask, mask_batch, mask_head), batch, head), mask_row)
        if dmask is not None:
            dmask += tl.cast(line, tl.int64) * s * t
    else:
        of_mask = (mask, mask_row)
        to_q = _along_keys(
            to_q, x, y, logs, sums, of_k, of_v, of_mask, None, batch, few, start, 0, whole, s, t,
            scale, False, CAUSAL, MASKED, PRECISION, WIDEN, BOXED, D, E, BD, BE, BM, BN,
        )  # fmt: skip
    to_q = _along_keys(
        to_q, x, y, logs, sums, of_k, of_v, of_mask, dmask, batch, few, start, whole, stop, s, t,
        scale, True, CAUSAL, MASKED, PRECISION, WIDEN, BOXED, D, E, BD, BE, BM, BN,
    )  # fmt: skip
    put(to_q * factor, (dq, dq_batch, dq_head, dq_row), batch, head, start, s, D, BM, BD)


def backward(
    g: xp.ndarray, q: xp.ndarray, k: xp.ndarray, v: xp.ndarray, out: xp.ndarray, lse: xp.ndarray,
    dq: xp.ndarray, dk: xp.ndarray, dv: xp.ndarray, causal: bool, scale: float,
    mask: xp.ndarray | None = None, dmask: xp.ndarray | None = None,
) -> None:  # fmt: skip
    """As flash.backward."""
    g, q, k, v = (plan.rows(x) for x in (g, q, k, v))
    mask = mask if mask is None else plan.rows(mask)
    homes = [plan.room(x) for x in (dq, dk, dv)]
    delta, base = _sums(g, plan.rows(out), lse)
    to_q, to_k, to_v = homes
    slopes = None if dmask is None else xp.empty_like(dmask, order="C")
    _launch_keys(g, q, k, v, delta, base, to_k, to_v, mask, causal, scale)
    _launch_queries(g, q, k, v, delta, base, to_q, mask, slopes, causal, scale)
    plan.settle(homes, [dq, dk, dv])
    if dmask is not None:
        dmask[...] = slopes


def _sums(g, out, lse):
    """Σ g·out and log-sum-exp of each query, as kernels take them."""
    b, heads, s, e = g.shape
    padded, wide = -(-s // PADDED) * PADDED, plan.width(e)
    delta, base = (xp.empty_like(lse, shape=(b * heads, padded)) for _ in range(2))
    size = NUMBERS // wide
    _delta_kernel[(b * heads * -(-padded // size),)](
        g, out, lse, delta, base, *plan.strides(g, out), heads, s,
        padded, WIDEN=plan.widens(g), E=e, BE=wide, BM=size,
    )  # fmt: skip
    return delta, base


def _launch_keys(g, q, k, v, delta, base, dk, dv, mask, causal, scale):
    (b, heads, s, d), (_, few, t, e) = q.shape, v.shape
    kind, tile = plan.choose("keys", max(d, e), plan.kind_of([q, g], mask))
    of_q, of_g = (plan.operand(x, kind, tile.BM, plan.width(n)) for x, n in ((q, d), (g, e)))
    _keys_kernel[(b * few * -(-t // tile.BN),)](
        of_q, k, v, of_g, delta, base, dk,
        dv, mask, *plan.strides(q, k, v, g, dk, dv, mask), heads,
        heads // max(few, 1), s, t, delta.shape[1], scale * LOG2E, scale,
        EVEN=kind == "box" or s % tile.BM == 0,
        **plan.constants(q, v, causal, kind, tile),
    )  # fmt: skip


def _launch_queries(g, q, k, v, delta, base, dq, mask, dmask, causal, scale):
    (b, heads, s, d), (_, few, t, e) = q.shape, v.shape
    kind, tile = plan.choose("queries", max(d, e), plan.kind_of([k, v], mask))
    of_k, of_v = (plan.operand(x, kind, tile.BN, plan.width(n)) for x, n in ((k, d), (v, e)))
    _queries_kernel[(b * heads * -(-s // tile.BM),)](
        q, of_k, of_v, g, delta, base, dq,
        mask, dmask, *plan.strides(q, k, v, g, dq, mask), heads,
        heads // max(few, 1), s, t, delta.shape[1], scale * LOG2E, scale,
        **plan.constants(q, v, causal, kind, tile),
    )  # fmt: skip
