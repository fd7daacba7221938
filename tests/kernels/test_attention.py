"""Attention: loop ≡ formula ≡ float64, in memory O(s); what is hidden or dropped; merging."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import attention
from minidist.kernels.dispatch import using
from minidist.kernels.elementary import exp_negative
from minidist.kernels.half_precision import BFLOAT16, wide
from minidist.kernels.loops import Out, loop
from support import attention_cases
from support.attention_cases import formulas
from support.cases import LAYOUTS, SEEDS, laid_out, tiny_tiles
from support.peak import peak

BOUNDS = {"float32": 1e-5, "float64": 3e-14}  # of results beside numbers of at least 1
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
SLACK = 1 << 16  # bytes: views, lists of blocks
CAUSAL = pytest.mark.parametrize("causal", [False, True])


@loop
def exponentials_of(x: Out[::1]):
    for i in range(len(x)):
        x[i] = exp_negative(x[i])


def inputs(b, heads, few, s, t, d, e, seed=0, dtype="float64"):
    """q, k, v, and the cotangent of out."""
    rng = np.random.default_rng(seed)
    shapes = (b, heads, s, d), (b, few, t, d), (b, few, t, e), (b, heads, s, e)
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def some_mask(shape, seed=0, dtype="float64"):
    """One row in four hides all keys."""
    rng = np.random.default_rng(seed)
    seen = (rng.random(shape) < 0.6) & (rng.random((*shape[:-1], 1)) < 0.75)
    return np.where(seen, rng.standard_normal(shape), -np.inf).astype(dtype)


def both_ways(q, k, v, g, causal, scale, mask=None, drop=None, layout="C"):
    """[out, lse, dq, dk, dv, dmask] into arrays that held NaN."""
    new = lambda shape: laid_out(np.full(shape, np.nan, q.dtype), layout)
    out, dq, dk, dv = (new(x.shape) for x in (g, q, k, v))
    lse = attention.forward(q, k, v, out, causal, scale, mask, drop)
    dmask = None if mask is None else new(mask.shape)
    attention.backward(g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask, dmask, drop)
    return [out, lse, dq, dk, dv, *([] if mask is None else [dmask])]


def difference(found, wanted) -> float:
    return attention_cases.difference(found, wanted, lambda w: np.abs(w).max(initial=0))


@DTYPES
@given(b=st.integers(0, 2), few=st.integers(1, 2), group=st.integers(1, 3), s=st.integers(0, 9),
       t=st.integers(0, 9), d=st.integers(1, 3), e=st.integers(1, 3), causal=st.booleans(),
       masked=st.booleans(), size=st.sampled_from([1, 3, 64]), factor=st.sampled_from([1, 100]),
       scale=st.sampled_from([0.5, -0.7, 0.0]), elements=st.sampled_from([1, 12, 1 << 14]),
       dropped=st.booleans(), layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=100)
def test_loop_is_formula(dtype, b, few, group, s, t, d, e, causal, masked, size, factor, scale,
                         elements, dropped, layout, seed):  # fmt: skip
    q, k, v, g = inputs(b, few * group, few, s, t, d, e, seed, dtype)
    q, k, v, g = (laid_out(x, layout) for x in (q * np.array(factor, dtype), k, v, g))
    masked &= not causal
    mask = some_mask((b, few * group, s, t), seed, dtype) if masked else None
    kept = np.random.default_rng(seed + 1).random((b, few * group, s, t)) < 0.7
    drop = (kept, 1.4) if dropped else None
    with tiny_tiles(elements, size):
        found = both_ways(q, k, v, g, causal, scale, mask, drop, layout)
    assert all(x.dtype == dtype for x in found)
    bound = BOUNDS[dtype] * (30 if factor > 1 else 1)  # of scores up to 300
    assert difference(found, formulas(q, k, v, g, causal, scale, mask, drop)) < bound


@CAUSAL
@pytest.mark.parametrize("s, t", [(600, 600), (1100, 300), (300, 1100), (1, 600), (600, 1)])
def test_blocks_as_they_are(causal, s, t):
    for factor in (1, 30):
        q, k, v, g = inputs(1, 4, 2, s, t, 16, 16, dtype="float32")
        case = q * np.float32(factor), k, v, g, causal, 0.25
        assert difference(both_ways(*case), formulas(*case)) < BOUNDS["float32"] * factor


@CAUSAL
def test_a_few_queries_that_are_long_change_no_other_bits(causal):
    """Only their own maximum is taken off: rounding tells nothing of other queries."""
    q, k, v, _ = inputs(1, 2, 2, 50, 50, 4, 4, dtype="float32")
    before, after = np.empty_like(q), np.empty_like(q)
    with tiny_tiles(64, 8):
        first = attention.forward(q, k, v, before, causal, 0.5)
        q[:, :, 20] *= 1000
        second = attention.forward(q, k, v, after, causal, 0.5)
    others = np.arange(50) != 20
    np.testing.assert_array_equal(before[:, :, others], after[:, :, others])
    np.testing.assert_array_equal(first[:, :, others], second[:, :, others])
    assert (before[:, :, 20] != after[:, :, 20]).all()


@pytest.mark.parametrize("size", [8, 64, 256])
def test_the_future_changes_no_bit_of_the_past(size):
    q, k, v, _ = inputs(1, 1, 1, 130, 130, 8, 8, dtype="float32")
    before, after = np.empty_like(q), np.empty_like(q)
    with tiny_tiles(1 << 16, size):
        attention.forward(q, k, v, before, True, 0.5)
        k[:, :, 100:], v[:, :, 100:] = 1e3, 1e20
        attention.forward(q, k, v, after, True, 0.5)
    np.testing.assert_array_equal(before[:, :, :100], after[:, :, :100])
    assert (before[:, :, 100:] != after[:, :, 100:]).all()


@CAUSAL
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_stays_in_its_row(causal, bad):
    """Of queries: it comes out where it goes in, and nowhere else."""
    q, k, v, g = inputs(1, 2, 1, 40, 40, 4, 4, dtype="float32")
    clean = both_ways(q, k, v, g, causal, 0.5)
    q[0, 1, 20] = bad
    with np.errstate(all="ignore"):
        found = both_ways(q, k, v, g, causal, 0.5)
        wanted = formulas(q, k, v, g, causal, 0.5)
    others = np.arange(40) != 20
    for a, b, w in zip(found[:3], clean, wanted):  # out, lse, dq
        np.testing.assert_array_equal(a[:, 0], b[:, 0])
        np.testing.assert_array_equal(a[:, 1, others], b[:, 1, others])
        assert np.isnan(a[:, 1, 20]).all() and np.isnan(w[:, 1, 20]).all()


def test_heads_of_no_width_see_all_keys_alike():
    case = *inputs(1, 2, 1, 5, 6, 0, 3), False, 1.0
    assert difference(both_ways(*case), formulas(*case)) < BOUNDS["float64"]


def test_every_version_takes_what_another_saved():
    q, k, v, g = inputs(1, 4, 2, 50, 50, 8, 8)
    wanted = formulas(q, k, v, g, True, 0.3)
    for first, second in (("naive", "numba"), ("numba", "naive")):
        out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
        with using(first):
            lse = attention.forward(q, k, v, out, True, 0.3)
        with using(second):
            attention.backward(g, q, k, v, out, lse, dq, dk, dv, True, 0.3)
        assert difference([out, lse, dq, dk, dv], wanted) < BOUNDS["float64"]


@DTYPES
@pytest.mark.parametrize("s, t", [(1, 1), (9, 9), (9, 5), (5, 9), (64, 64), (65, 65), (40, 300)])
def test_attention_in_blocks_is_attention_in_one(s, t, dtype):
    for causal in (False, True):
        case = *inputs(2, 3, 3, s, t, 4, 4, dtype=dtype), causal, 0.5
        wanted = formulas(*case)
        for size in (1, 3, 4, 63, 64, 1000):
            with tiny_tiles(16, size):
                assert difference(both_ways(*case), wanted) < BOUNDS[dtype]


@DTYPES
def test_a_head_does_not_depend_on_how_many_there_are(dtype):
    """Nor on the batch: tensor and data parallelism cut both."""
    q, k, v, g = inputs(6, 4, 2, 70, 70, 8, 8, dtype=dtype)
    whole = both_ways(q, k, v, g, True, 0.3)
    at, few = (slice(2, 3), slice(2, 4)), (slice(2, 3), slice(1, 2))
    part = both_ways(q[at], k[few], v[few], g[at], True, 0.3)
    for a, b, where in zip(part, whole, (at, at, at, few, few)):
        np.testing.assert_array_equal(a, b[where])


def test_heads_of_one_projection():
    """Views of packed queries, keys and values, and of their cotangents."""
    for s in (64, 200):
        packed, out, grads = (np.full((2, s, n, 4, 16), np.nan, "f") for n in (3, 1, 3))
        views = lambda x: list(x.transpose(2, 0, 3, 1, 4))
        for x, y in zip(views(packed), inputs(2, 4, 4, s, s, 16, 16, dtype="float32")):
            x[...] = y
        q, k, v = views(packed)
        g = np.random.default_rng(5).standard_normal(out.shape).astype("f")
        lse = attention.forward(q, k, v, *views(out), True, 0.25)
        attention.backward(*views(g), q, k, v, *views(out), lse, *views(grads), True, 0.25)
        wanted = formulas(q, k, v, *views(g), True, 0.25)
        assert difference([*views(out), lse, *views(grads)], wanted) < BOUNDS["float32"]


def test_the_exponential_of_negative_numbers():
    x = np.concatenate([np.linspace(-87.3, 0, 1_000_001), [-20.0, -0.0]]).astype("f")
    y, wanted = x.copy(), np.exp(x.astype("d"))
    exponentials_of(y)
    ulp = np.abs(y - wanted) / np.spacing(wanted.astype("f"))
    assert ulp.max() < 4.5 and ulp[x > -20].max() < 1.4
    y = np.array([-np.inf, -1e30, -88, np.nan, 0, 80], "f")
    exponentials_of(y)
    np.testing.assert_array_equal(y[:5], [0, 0, 0, np.nan, 1])
    assert np.isclose(y[5], np.exp(80.0), rtol=1e-6)


@CAUSAL
@DTYPES
def test_scores_of_ten_thousand(causal, dtype):
    q, k, v, g = inputs(1, 1, 1, 40, 40, 2, 2, dtype=dtype)
    q[...], k[...] = 100, 100 * np.where(np.arange(40) % 3, 1, -1)[:, None]
    case = q, k, v, g, causal, 0.5  # scores of ±1e4, whose slopes are differences of equal ones
    with tiny_tiles(64, 8):
        found = both_ways(*case)
    wanted = formulas(*case)
    # the first query sees a key of -1e4 alone, the third has two that are alike
    assert difference(found[:2], wanted[:2]) < BOUNDS[dtype] * 10
    assert difference(found[2:], wanted[2:]) < BOUNDS[dtype] * 100


@CAUSAL
def test_huge_values_do_not_overflow(causal):
    q, k, v, _ = inputs(1, 1, 1, 40, 40, 4, 4, dtype="float32")
    q, k, v = q * 2, k * 2, v * np.float32(1e34)
    out = np.empty_like(q)
    attention.forward(q, k, v, out, causal, 0.5)
    wanted = formulas(q, k, v, q, causal, 0.5)[0]
    assert difference([out / 1e34], [wanted / 1e34]) < 1e-5


def test_a_query_that_sees_nothing_gives_zeros():
    q, k, v, g = inputs(1, 2, 1, 6, 9, 3, 3)
    mask = np.zeros((1, 2, 6, 9))
    mask[:, :, 2] = -np.inf
    for size in (2, 64):
        with tiny_tiles(64, size):
            out, lse, dq, dk, dv, dmask = both_ways(q, k, v, g, False, 0.5, mask)
        assert not (out[:, :, 2].any() or dq[:, :, 2].any() or dmask[:, :, 2].any())
        assert np.isneginf(lse[:, :, 2]).all() and np.isfinite(lse[:, :, 3]).all()
        assert all(np.isfinite(x).all() for x in (dk, dv))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_numbers_of_16_bits_are_summed_in_float32(dtype):
    narrow = []
    for x in inputs(1, 2, 1, 70, 70, 8, 8, dtype="float32"):
        y = x.astype(np.float16 if dtype == "float16" else BFLOAT16)
        narrow.append(y)
    q, k, v, g = narrow
    out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
    lse = attention.forward(q, k, v, out, True, 0.3)
    attention.backward(g, q, k, v, out, lse, dq, dk, dv, True, 0.3)
    wanted = formulas(*map(wide, narrow), True, 0.3)
    assert lse.dtype == "float32"
    rounding = 2**-10 if dtype == "float16" else 2**-7
    assert difference([wide(out), lse], wanted[:2]) < rounding
    assert difference([wide(x) for x in (dq, dk, dv)], wanted[2:]) < 3 * rounding  # by out's


# Two sets of keys, as ranks in a ring hold them


@given(s=st.integers(1, 9), t=st.integers(2, 9), cut=st.integers(1, 8), seed=SEEDS)
@settings(max_examples=25)
def test_merged_halves_are_the_whole(s, t, cut, seed):
    q, k, v, g = inputs(2, 2, 1, s, t, 3, 3, seed)
    mask, cut = some_mask((2, 2, s, t), seed), min(cut, t - 1)
    parts, states = (slice(0, cut), slice(cut, t)), []
    for keys in parts:
        out, own = np.empty_like(g), (k[:, :, keys], v[:, :, keys])
        states += out, attention.forward(q, *own, out, False, 0.5, mask[..., keys])
    out, lse = attention.merge(*states)
    wanted = formulas(q, k, v, g, False, 0.5, mask)
    assert difference([out, lse], wanted[:2]) < 1e-13
    dqs, dks, dvs = [], [], []
    for keys in parts:  # the whole output and log-sum-exp serve each part's backward
        dq, dk, dv = np.empty_like(q), np.empty_like(k[:, :, keys]), np.empty_like(v[:, :, keys])
        own = k[:, :, keys], v[:, :, keys]
        attention.backward(g, q, *own, out, lse, dq, dk, dv, False, 0.5, mask[..., keys])
        dqs, dks, dvs = [*dqs, dq], [*dks, dk], [*dvs, dv]
    found = [sum(dqs), np.concatenate(dks, 2), np.concatenate(dvs, 2)]
    assert difference(found, wanted[2:5]) < 1e-12


def test_merging_with_scores_far_apart_or_with_nothing():
    out = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    near, far = np.array([[[1e4, -1e4, -np.inf, -np.inf]]]), np.array([[[-1e4, 1e4, 5, -np.inf]]])
    merged, lse = attention.merge(out, near, -out, far)
    np.testing.assert_array_equal(merged.ravel(), [1, -2, -3, 0])
    np.testing.assert_array_equal(lse.ravel(), [1e4, 1e4, 5, -np.inf])
    back, _ = attention.merge(-out, far, out, near)
    np.testing.assert_array_equal(back, merged)


# Memory


def memory(s: int, causal: bool, heads: int, few: int, d: int) -> list[int]:
    """Temporary bytes of forward and of backward."""
    q, k, v, g = inputs(1, heads, few, s, s, d, d, dtype="float32")
    out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
    lse = attention.forward(q, k, v, out, causal, 0.1)
    return [
        peak(attention.forward, q, k, v, out, causal, 0.1),
        peak(attention.backward, g, q, k, v, out, lse, dq, dk, dv, causal, 0.1),
    ]


@CAUSAL
@pytest.mark.parametrize("few", [4, 1])
def test_temporary_memory(causal, few):
    """A tile's scores, and backward their slopes; its product beside what it is added to; numbers
    of queries."""
    d, heads = 64, 4
    for s in (1024, 3000):
        forward, backward = memory(s, causal, heads, few, d)
        rows, keys = min(attention.MOST, s // 8 if causal else s), attention.KEYS
        tile, numbers = rows * keys, 3 * heads * s
        assert tile * 4 < forward < (tile + 2 * rows * d + numbers) * 4 + SLACK
        assert 2 * tile * 4 < backward < (2 * tile + keys * d + numbers) * 4 + SLACK


def test_memory_is_in_proportion_to_length():
    short, long = (memory(s, True, 1, 1, 16) for s in (2048, 8192))
    assert all(b < 4 * a for a, b in zip(short, long))
    assert max(long) < 8192 * 8192 * 4 / 50  # a fiftieth of the scores


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    case = *inputs(1, 2, 1, 40, 40, 4, 4, dtype="float32"), True, 0.5
    assert difference(both_ways(*case), formulas(*case)) > 100 * BOUNDS["float64"]


@pytest.mark.parametrize("loop, at", [("softmax_tile", 1), ("slopes_tile", 2)])
@CAUSAL
def test_a_mask_shifted_by_one_is_seen(causal, loop, at, monkeypatch):
    right = getattr(attention, loop)
    wrong = lambda *args: right(*args[:at], args[at] + 1, *args[at + 1 :])
    monkeypatch.setattr(attention, loop, wrong)
    case = *inputs(1, 2, 1, 40, 40, 4, 4), causal, 0.5
    assert (difference(both_ways(*case), formulas(*case)) > 0.01) == causal


def test_a_block_of_keys_left_out_is_seen(monkeypatch):
    right = attention.tiles
    monkeypatch.setattr(attention, "tiles", lambda *of: [(r, x[:2]) for r, x in right(*of)])
    q, k, v, _ = inputs(1, 1, 1, 8, 40, 4, 4)
    with tiny_tiles(1 << 10, 8):
        lse = attention.forward(q, k, v, out := np.empty_like(q), False, 0.5)
    assert difference([out, lse], formulas(q, k, v, q, False, 0.5)[:2]) > 0.01


def test_what_earlier_keys_gave_unscaled_is_seen(monkeypatch):
    right = attention.blend_rows
    wrong = lambda part, fade, out: right(part, np.ones_like(fade), out)
    monkeypatch.setattr(attention, "blend_rows", wrong)
    case = *inputs(1, 1, 1, 8, 40, 4, 4), False, 0.5
    with tiny_tiles(1 << 10, 8):
        assert difference(both_ways(*case)[:1], formulas(*case)[:1]) > 0.01
