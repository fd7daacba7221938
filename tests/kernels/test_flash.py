"""Flash attention in NumPy: tiled ≡ naive ≡ float64, memory in proportion to length, merging."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import attention, flash, flash_tiles
from minidist.kernels.half_precision import BFLOAT16, wide
from support import attention_cases
from support.attention_cases import formulas
from support.cases import LAYOUTS, SEEDS, laid_out, tiny_tiles
from support.peak import peak

BOUNDS = {"float32": 1e-5, "float64": 3e-14}  # of results beside numbers of at least 1
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
CAUSAL = pytest.mark.parametrize("causal", [False, True])


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


def both_ways(q, k, v, g, causal, scale, mask=None, layout="C"):
    """[out, lse, dq, dk, dv, dmask] into arrays that held NaN."""
    new = lambda shape: laid_out(np.full(shape, np.nan, q.dtype), layout)
    out, dq, dk, dv = (new(x.shape) for x in (g, q, k, v))
    lse = flash.forward(q, k, v, out, causal, scale, mask)
    dmask = None if mask is None else new(mask.shape)
    flash.backward(g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask, dmask)
    return [out, lse, dq, dk, dv, *([] if mask is None else [dmask])]


def difference(found, wanted) -> float:
    return attention_cases.difference(found, wanted, lambda w: np.abs(w).max(initial=0))


@DTYPES
@given(b=st.integers(0, 2), few=st.integers(1, 2), group=st.integers(1, 3), s=st.integers(0, 9),
       t=st.integers(0, 9), d=st.integers(1, 3), e=st.integers(1, 3), causal=st.booleans(),
       masked=st.booleans(), size=st.sampled_from([1, 3, 64]), factor=st.sampled_from([1, 100]),
       scale=st.sampled_from([0.5, -0.7]), elements=st.sampled_from([1, 12, 1 << 14]),
       layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=80)
def test_tiled_is_naive(dtype, b, few, group, s, t, d, e, causal, masked, size, factor, scale,
                        elements, layout, seed):  # fmt: skip
    q, k, v, g = inputs(b, few * group, few, s, t, d, e, seed, dtype)
    q, k, v, g = (laid_out(x, layout) for x in (q * np.array(factor, dtype), k, v, g))
    masked &= not causal
    mask = some_mask((b, few * group, s, t), seed, dtype) if masked else None
    with tiny_tiles(elements, size):
        found = both_ways(q, k, v, g, causal, scale, mask, layout)
    assert all(x.dtype == dtype for x in found)
    bound = BOUNDS[dtype] * (30 if factor > 1 else 1)  # of scores up to 300
    assert difference(found, formulas(q, k, v, g, causal, scale, mask)) < bound


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
        first = flash.forward(q, k, v, before, causal, 0.5)
        q[:, :, 20] *= 1000
        second = flash.forward(q, k, v, after, causal, 0.5)
    others = np.arange(50) != 20
    np.testing.assert_array_equal(before[:, :, others], after[:, :, others])
    np.testing.assert_array_equal(first[:, :, others], second[:, :, others])
    assert (before[:, :, 20] != after[:, :, 20]).all()


@pytest.mark.parametrize("kept", [False, True])
def test_the_future_changes_no_bit_of_the_past(kept):
    q, k, v, _ = inputs(1, 1, 1, 130, 130, 8, 8, dtype="float32")
    run = attention.forward if kept else flash.forward
    before, after = np.empty_like(q), np.empty_like(q)
    run(q, k, v, before, True, 0.5)
    k[:, :, 100:], v[:, :, 100:] = 1e3, 1e20
    run(q, k, v, after, True, 0.5)
    np.testing.assert_array_equal(before[:, :, :100], after[:, :, :100])
    assert (before[:, :, 100:] != after[:, :, 100:]).all()


@DTYPES
@pytest.mark.parametrize("by_2", [False, True])
@pytest.mark.parametrize("near", [0.0, 1.0, 40.0])
def test_every_way_to_the_exponentials(dtype, by_2, near, monkeypatch):
    monkeypatch.setattr(flash_tiles, "NEAR", near)
    monkeypatch.setattr(flash_tiles, "power_of_2", lambda dtype: by_2)
    for causal in (False, True):
        case = *inputs(1, 2, 1, 40, 40, 4, 4, dtype=dtype), causal, 0.5
        with tiny_tiles(256, 8):
            assert difference(both_ways(*case), formulas(*case)) < BOUNDS[dtype]


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
    flash.forward(q, k, v, out, causal, 0.5)
    wanted, _ = flash.naive(q, k, v.astype("d"), causal, 0.5)
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
    lse = flash.forward(q, k, v, out, True, 0.3)
    flash.backward(g, q, k, v, out, lse, dq, dk, dv, True, 0.3)
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
        states += out, flash.forward(q, *own, out, False, 0.5, mask[..., keys])
    out, lse = flash.merge(*states)
    wanted = formulas(q, k, v, g, False, 0.5, mask)
    assert difference([out, lse], wanted[:2]) < 1e-13
    dqs, dks, dvs = [], [], []
    for keys in parts:  # the whole output and log-sum-exp serve each part's backward
        dq, dk, dv = np.empty_like(q), np.empty_like(k[:, :, keys]), np.empty_like(v[:, :, keys])
        own = k[:, :, keys], v[:, :, keys]
        flash.backward(g, q, *own, out, lse, dq, dk, dv, False, 0.5, mask[..., keys])
        dqs, dks, dvs = [*dqs, dq], [*dks, dk], [*dvs, dv]
    found = [sum(dqs), np.concatenate(dks, 2), np.concatenate(dvs, 2)]
    assert difference(found, wanted[2:5]) < 1e-12


def test_merging_with_scores_far_apart_or_with_nothing():
    out = np.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 1, 4, 1)
    near, far = np.array([[[1e4, -1e4, -np.inf, -np.inf]]]), np.array([[[-1e4, 1e4, 5, -np.inf]]])
    merged, lse = flash.merge(out, near, -out, far)
    np.testing.assert_array_equal(merged.ravel(), [1, -2, -3, 0])
    np.testing.assert_array_equal(lse.ravel(), [1e4, 1e4, 5, -np.inf])
    back, _ = flash.merge(-out, far, out, near)
    np.testing.assert_array_equal(back, merged)


# Memory, and which form is chosen


def memory(s: int, causal: bool, heads: int, few: int, d: int) -> list[int]:
    """Temporary bytes of forward and of backward."""
    q, k, v, g = inputs(1, heads, few, s, s, d, d, dtype="float32")
    out, dq, dk, dv = (np.empty_like(x) for x in (g, q, k, v))
    lse = flash.forward(q, k, v, out, causal, 0.1)
    return [
        peak(flash.forward, q, k, v, out, causal, 0.1),
        peak(flash.backward, g, q, k, v, out, lse, dq, dk, dv, causal, 0.1),
    ]


@CAUSAL
@pytest.mark.parametrize("few", [4, 1])
def test_temporary_memory(causal, few):
    """A tile's scores, and backward their slopes; its product beside what it is added to; arrays
    like k of its heads, forward k, backward k, v, q, g and three sums; and rows' numbers."""
    d = 64
    for s in (1024, 3000):
        forward, backward = memory(s, causal, 4, few, d)
        for found, parts, tiles, arrays in ((forward, 8, 1, 1), (backward, 16, 2, 7)):
            size = flash_tiles.block_size(s, parts, causal)
            heads = min(few, max(1, flash_tiles.ELEMENTS // (size * flash.ALONG)))
            product = 2 * size * d if arrays == 1 else flash.ALONG * d
            numbers = tiles * size * flash.ALONG + product + arrays * s * (d + 1)
            assert numbers * heads * 4 < found < numbers * heads * 4 + 5 * s * (4 + few) * 4


def test_memory_is_in_proportion_to_length():
    short, long = (memory(s, True, 1, 1, 16) for s in (2048, 8192))
    assert all(b < 4 * a for a, b in zip(short, long))
    assert max(long) < 8192 * 8192 * 4 / 50  # a fiftieth of the scores


@pytest.mark.parametrize("length", [64, 256, 257])
def test_probabilities_are_kept_up_to_a_size(length):
    q, k, v, g = inputs(1, 2, 1, length, length, 8, 8, dtype="float32")
    out, grads = np.empty_like(g), [np.full_like(x, np.nan) for x in (q, k, v)]
    saved = attention.forward(q, k, v, out, True, 0.3)
    assert saved.shape == ((1, 2, length, length) if length <= 256 else (1, 2, length))
    attention.backward(g, q, k, v, out, saved, *grads, True, 0.3)
    wanted = formulas(q, k, v, g, True, 0.3)
    assert difference([out, *grads], [wanted[0], *wanted[2:]]) < BOUNDS["float32"]


# The controls: what the assertions above must refuse


def test_float32_fails_the_bound_of_float64():
    case = *inputs(1, 2, 1, 40, 40, 4, 4, dtype="float32"), True, 0.5
    assert difference(both_ways(*case), formulas(*case)) > 100 * BOUNDS["float64"]


@pytest.mark.parametrize("causal, by", [(True, 1), (False, 0)])
def test_a_mask_shifted_by_one_is_seen(causal, by, monkeypatch):
    right = flash_tiles.edge
    wrong = lambda rows, keys, ahead, *rest: right(rows, keys, ahead + by, *rest)
    monkeypatch.setattr(flash_tiles, "edge", wrong)
    case = *inputs(1, 2, 1, 40, 40, 4, 4), causal, 0.5
    assert (difference(both_ways(*case), formulas(*case)) > 0.01) == causal


def test_a_block_of_keys_left_out_is_seen(monkeypatch):
    right = flash.blocks
    monkeypatch.setattr(flash, "blocks", lambda *between: list(right(*between))[:2])
    q, k, v, _ = inputs(1, 1, 1, 8, 40, 4, 4)
    with tiny_tiles(1 << 10, 8):
        lse = flash.forward(q, k, v, out := np.empty_like(q), False, 0.5)
    assert difference([out, lse], flash.naive(q, k, v, False, 0.5)) > 0.01


def test_without_the_bound_on_scores_they_overflow(monkeypatch):
    monkeypatch.setattr(flash_tiles, "NEAR", np.inf)
    q, k, v, _ = inputs(1, 1, 1, 8, 8, 4, 4, dtype="float32")
    with np.errstate(all="ignore"):
        flash.forward(q * 100, k * 100, v, out := np.empty_like(q), False, 0.5)
    assert not np.isfinite(out).all()
