"""Flash attention in Triton ≡ in NumPy ≡ the formula in float64; no atomics; bytes moved."""

from __future__ import annotations

import contextlib
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import attention, flash_backward, flash_plan, flash_triton
from minidist.kernels.dispatch import using
from minidist.kernels.flash_plan import Tile
from minidist.kernels.half_precision import BFLOAT16, wide
from minidist.kernels.launch import Kernel, triton_kernel
from support import attention_cases
from support.attention_cases import difference
from support.cases import SEEDS
from support.tritons import poisoned, traffic

tl: Any = None  # Triton's language, once a kernel is launched

# Errors are relative to numbers of at least 1. Backward subtracts Σ y·g, up to 16 products of a
# rounded y: that is 16 units of rounding (2⁻⁹ for bfloat16). With those of p and ds, up to 35 were
# seen.
BOUND = {"float32": 2**-17, "float16": 2**-8, "bfloat16": 3 * 2**-5}
DTYPES = pytest.mark.parametrize("dtype", BOUND)
CAUSAL = pytest.mark.parametrize("causal", [False, True])
LENGTHS = st.sampled_from([0, 1, 5, 16, 21, 33])
VIEWS = ("alone", "packed", "turned")


@contextlib.contextmanager
def small_tiles(rows=16, keys=16, tma=True):
    """Inside, tiles are this small, and TMA loads those of 16 bits or not."""
    small = {256: Tile(rows, keys, 4, 2)}
    tiles = {kind: dict.fromkeys(of, small) for kind, of in flash_plan.TILES.items()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash_plan, "TILES", tiles)
        if not tma:
            patch.setattr(flash_plan, "has_tma", lambda x: False)
        yield


def rounded(x, dtype):
    """x in that dtype."""
    return x.astype(BFLOAT16 if dtype == "bfloat16" else dtype)


def viewed(arrays, view):
    """Their numbers in views: of one projection's, or with rows that are not contiguous."""
    if view == "turned":
        return [x.swapaxes(-1, -2).copy().swapaxes(-1, -2) for x in arrays]
    if view == "alone" or len({x.shape[2] for x in arrays}) > 1:
        return arrays
    flat = [x.transpose(0, 2, 1, 3).reshape(len(x), x.shape[2], x.shape[1] * x.shape[3])
            for x in arrays]  # fmt: skip
    columns = np.cumsum([0, *(x.shape[2] for x in flat)])
    packed = np.concatenate(flat, 2)
    parts = (packed[:, :, a:z] for a, z in pairwise(columns))
    return [p.reshape(len(p), p.shape[1], x.shape[1], x.shape[3]).transpose(0, 2, 1, 3)
            for p, x in zip(parts, arrays)]  # fmt: skip


def inputs(b=1, heads=2, few=1, s=24, t=24, d=8, e=8, dtype="float32", seed=0, masked=False):
    """q, k, v, g and a mask, or None, that hides all keys from one query in four."""
    rng = np.random.default_rng(seed)
    shapes = (b, heads, s, d), (b, few, t, d), (b, few, t, e), (b, heads, s, e)
    arrays = [rounded(rng.standard_normal(shape).astype("f"), dtype) for shape in shapes]
    seen = (rng.random((1, heads, s, t)) < 0.6) & (rng.random((1, heads, s, 1)) < 0.75)
    mask = np.where(seen, rng.standard_normal(seen.shape), -np.inf).astype("f")
    return [*arrays, np.broadcast_to(rounded(mask, dtype), (b, heads, s, t)) if masked else None]


def both_ways(version, q, k, v, g, mask, causal, scale, view="alone"):
    """[out, lse, dq, dk, dv, dmask] into arrays that held NaN."""
    dtype = q.dtype.name
    new = lambda *like: viewed([rounded(np.full(x.shape, np.nan, "f"), dtype) for x in like], view)
    (out,), (dq, dk, dv) = new(g), new(q, k, v)
    with using(version), poisoned():
        lse = attention.forward(q, k, v, out, causal, scale, mask)
        (dmask,) = [None] if mask is None else new(mask)
        attention.backward(g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask, dmask)
    assert all(x.dtype == q.dtype for x in (out, dq, dk, dv))
    assert lse.dtype == np.float32
    return [wide(x) for x in (out, lse, dq, dk, dv, dmask) if x is not None]


def formulas(q, k, v, g, mask, causal, scale):
    return attention_cases.formulas(q, k, v, g, causal, scale, mask)


@DTYPES
@given(b=st.integers(1, 2), few=st.integers(1, 2), group=st.integers(1, 2), s=LENGTHS, t=LENGTHS,
       d=st.sampled_from([1, 8, 20]), e=st.sampled_from([3, 8, 16]), causal=st.booleans(),
       masked=st.booleans(), same=st.booleans(), scale=st.sampled_from([0.5, -0.3]),
       tile=st.sampled_from([(16, 16), (16, 32), (32, 16)]), tma=st.booleans(),
       view=st.sampled_from(VIEWS), seed=SEEDS)  # fmt: skip
@settings(max_examples=11)
def test_triton_is_numpy_is_the_formula(dtype, b, few, group, s, t, d, e, causal, masked, same,
                                        scale, tile, tma, view, seed):  # fmt: skip
    s, masked = t if same else s, masked and not causal
    q, k, v, g, mask = inputs(b, few * group, few, s, t, d, e, dtype, seed, masked)
    (q, k, v), (g,) = viewed([q, k, v], view), viewed([g], view)
    case = q, k, v, g, mask, causal, scale
    wanted = formulas(*case)
    with small_tiles(*tile, tma):
        assert difference(both_ways("triton", *case, view), wanted) < BOUND[dtype]
    assert difference(both_ways("numba", *case, view), wanted) < BOUND[dtype]


@CAUSAL
@pytest.mark.parametrize("dtype, tma", [("float32", False), ("float16", True), ("bfloat16", False)])
def test_tiles_as_they_are(dtype, causal, tma):
    """Those that a GPU has, of lengths that are no whole number of them."""
    case = *inputs(1, 1, 1, 100, 140, 40, 64, dtype), causal, 0.1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flash_plan, "has_tma", lambda x: tma and x.itemsize == 2)
        found = both_ways("triton", *case)
    assert difference(found, formulas(*case)) < 2 * BOUND[dtype]


def test_queries_that_see_nothing_give_zeros():
    *arrays, mask = inputs(masked=True)
    mask = mask.copy()
    mask[:, :, 3] = -np.inf
    with small_tiles():
        out, lse, dq, *_, dmask = both_ways("triton", *arrays, mask, False, 0.5)
    assert not (out[:, :, 3].any() or dq[:, :, 3].any() or dmask[:, :, 3].any())
    assert np.isneginf(lse[:, :, 3]).all()


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("version", ["triton", "naive", "numba"])
def test_a_number_a_query_is_kept(version, dropped):
    """Triton's version does not drop: the formula does."""
    q, k, v, g, _ = inputs(s=20, t=20)
    seen = np.random.default_rng(1).random((1, 2, 20, 20)) < 0.7
    drop = (seen, np.float32(1 / 0.7)) if dropped else None
    out, grads = np.empty_like(g), [np.empty_like(x) for x in (q, k, v)]
    with using(version), small_tiles(), poisoned():
        lse = attention.forward(q, k, v, out, True, 0.5, None, drop)
        attention.backward(g, q, k, v, out, lse, *grads, True, 0.5, drop=drop)
    assert lse.shape == (1, 2, 20)
    wanted = attention_cases.formulas(q, k, v, g, True, 0.5, None, drop)
    assert difference([out, lse, *grads], wanted) < BOUND["float32"]


@CAUSAL
def test_the_naive_version_has_the_same_signature(causal):
    case = *inputs(s=9, t=7, masked=not causal), causal, 0.5
    assert difference(both_ways("naive", *case), formulas(*case)) < BOUND["float32"]


@pytest.mark.parametrize("d, dtype", [(8, "float64"), (300, "float32")])
def test_what_triton_does_not_serve_runs_in_numpy(d, dtype):
    q, k, v, g, _ = inputs(s=6, t=9, d=d, e=3)
    q, k, v, g = (x.astype(dtype) for x in (q, k, v, g))
    with using("triton"), traffic() as count:
        lse = attention.forward(q, k, v, out := np.empty_like(g), False, 0.1)
    assert not count
    assert difference([out, lse], formulas(q, k, v, g, None, False, 0.1)[:2]) < 1e-5


# Bytes moved


def keys_seen(s, t, causal, rows, keys):
    """By the blocks of queries together: causal up to the tile of the last query's own key."""
    stops = (min(t, start + rows) if causal else t for start in range(0, s, rows))
    return sum(min(t, -(-stop // keys) * keys) for stop in stops)


def queries_seen(s, t, causal, rows, keys):
    """By the blocks of keys together, in numbers and in tiles."""
    firsts = [min(start // rows, -(-s // rows)) if causal else 0 for start in range(0, t, keys)]
    tiles = sum(-(-s // rows) - first for first in firsts)
    return sum(max(0, s - first * rows) for first in firsts), tiles


@pytest.mark.parametrize("way", ["whole", "causal", "masked"])
@pytest.mark.parametrize("dtype, tma, s, t, rows, keys", [
    ("float32", False, 50, 40, 16, 32), ("float16", True, 20, 70, 32, 16),
    ("float16", False, 48, 48, 16, 16),
])  # fmt: skip
def test_bytes_moved(way, dtype, tma, s, t, rows, keys):
    """q, g, out and what is made of them once; k and v once for a block of queries that see them,
    q and g once for a block of keys; a mask once in each of three kernels; of each query lse, two
    numbers made of it, and those again with each tile."""
    causal, masked, d, e, lines = way == "causal", way == "masked", 8, 16, 2
    q, k, v, g, mask = inputs(1, lines, 1, s, t, d, e, dtype, 0, masked)
    out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
    dmask = None if mask is None else np.empty(mask.shape, mask.dtype)
    hidden = 0 if mask is None else mask.size * mask.itemsize
    row = (d + e) * q.itemsize
    along = lines * keys_seen(s, t, causal, rows, keys) * row
    with small_tiles(rows, keys, tma), traffic() as count:
        lse = flash_triton.forward(q, k, v, out, causal, 0.5, mask)
    assert dict(count) == {"load": q.nbytes + along + hidden, "store": out.nbytes + lse.nbytes}

    with small_tiles(rows, keys, tma), traffic() as count:
        flash_backward.backward(g, q, k, v, out, lse, dq, dk, dv, causal, 0.5, mask, dmask)
    numbers, tiles = queries_seen(s, t, causal, rows, keys)
    padded = lines * -(-s // 128) * 128 * 8
    made = g.nbytes + out.nbytes + lse.nbytes
    by_keys = k.nbytes + v.nbytes + lines * (numbers * row + tiles * rows * 8) + hidden
    by_rows = q.nbytes + g.nbytes + lines * -(-s // rows) * rows * 8 + along + hidden
    cotangents = dq.nbytes + dk.nbytes + dv.nbytes + hidden
    assert dict(count) == {"load": made + by_keys + by_rows, "store": padded + cotangents}


def test_no_atomics_so_two_runs_agree_to_the_last_bit():
    case = *inputs(heads=4, few=2), True, 0.5
    with small_tiles(), traffic() as count:
        first = both_ways("triton", *case)
        second = both_ways("triton", *case)
    assert "atomic" not in count
    assert all(np.array_equal(a, b) for a, b in zip(first, second))


# The controls: what the assertions above must refuse


@triton_kernel
def late(
    x, row, key, s, t, mask, CAUSAL: tl.constexpr, MASKED: tl.constexpr, BM: tl.constexpr,
    BN: tl.constexpr, TURNED: tl.constexpr,
):  # fmt: skip
    """As edged, but a query does not see its own key, except the first."""
    rows, keys = row + tl.arange(0, BM), key + tl.arange(0, BN)
    rows, keys = (rows[None, :], keys[:, None]) if TURNED else (rows[:, None], keys[None, :])
    return tl.where((keys < tl.maximum(rows, 1)) & (keys < t), x, float("-inf"))


@pytest.mark.parametrize("names", [
    ("_attend", "_forward_kernel"), ("_along_queries", "_keys_kernel"),
    ("_along_keys", "_queries_kernel"),
])  # fmt: skip
def test_a_mask_shifted_by_one_is_seen(names, monkeypatch):
    module = flash_triton if "_attend" in names else flash_backward
    monkeypatch.setattr(module, "edged", late)
    for name in names:  # compiled anew, with what is now in its place
        monkeypatch.setattr(module, name, Kernel(getattr(module, name).function))
    case = *inputs(), True, 0.5
    with small_tiles():
        assert difference(both_ways("triton", *case), formulas(*case)) > 0.01


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_delta_kernel", "_keys_kernel",
                                    "_queries_kernel"])  # fmt: skip
def test_a_block_that_no_program_writes_is_seen(kernel, monkeypatch):
    class LastProgramMissing:
        def __getitem__(self, grid):
            return whole[(grid[0] - 1,)]

    module = flash_triton if kernel == "_forward_kernel" else flash_backward
    whole = getattr(module, kernel)
    monkeypatch.setattr(module, kernel, LastProgramMissing())
    case = *inputs(), False, 0.5
    with small_tiles():
        assert not difference(both_ways("triton", *case), formulas(*case)) < BOUND["float16"]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_of_16_bits_fail_the_bound_of_float32(dtype):
    case = *inputs(dtype=dtype), True, 0.5
    with small_tiles():
        assert difference(both_ways("triton", *case), formulas(*case)) > 10 * BOUND["float32"]
