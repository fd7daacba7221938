"""Attention: gradients over several blocks of queries, and packed equal to separate."""

import math

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from minidist.kernels import attention as kernel
from support.cases import SEEDS, arrays, numbers, tiny_tiles

import minidist as md
from minidist import ops
from minidist.testing import gradcheck

BLOCKS = pytest.mark.parametrize("queries", [1, 3, 4])
TILES = st.sampled_from([1, 6, 1 << 14])


@BLOCKS
@given(data=st.data(), b=st.integers(0, 2), heads=st.integers(1, 3), s=st.integers(0, 6),
       t=st.integers(1, 6), d=st.integers(1, 2), causal=st.booleans(), elements=TILES)  # fmt: skip
@settings(max_examples=12)
def test_gradients(queries, data, b, heads, s, t, d, causal, elements):
    q, k, v = (data.draw(arrays((b, heads, n, w))) for n, w in ((s, d), (t, d), (t, d + 1)))
    with tiny_tiles(elements, queries):
        gradcheck(
            lambda *x: ops.scaled_dot_product_attention(*x, is_causal=causal, scale=0.7), [q, k, v]
        )


@BLOCKS
@pytest.mark.parametrize("s, t", [(5, 5), (7, 5), (4, 7), (1, 6), (6, 1)])
def test_gradients_of_causal_attention_between_other_lengths(queries, s, t):
    q, k, v = (numbers((1, 2, n, 2), i) for i, n in enumerate((s, t, t)))
    with tiny_tiles(8, queries):
        gradcheck(lambda *x: ops.scaled_dot_product_attention(*x, is_causal=True), [q, k, v])


@BLOCKS
@given(data=st.data(), b=st.integers(0, 2), s=st.integers(0, 6), heads=st.integers(1, 3),
       d=st.integers(1, 2), causal=st.booleans())  # fmt: skip
@settings(max_examples=12)
def test_gradients_of_packed_attention(queries, data, b, s, heads, d, causal):
    qkv = data.draw(arrays((b, s, 3 * heads * d)))
    with tiny_tiles(8, queries):
        gradcheck(lambda x: ops.packed_attention(x, heads, causal), [qkv])


@given(b=st.integers(1, 2), s=st.integers(1, 70), heads=st.integers(1, 3), d=st.integers(1, 4),
       causal=st.booleans(), seed=SEEDS)  # fmt: skip
@example(b=1, s=64, heads=1, d=4, causal=True, seed=0)
@example(b=2, s=65, heads=2, d=3, causal=True, seed=1)
@settings(max_examples=20)
def test_packed_is_split_attend_and_merge(b, s, heads, d, causal, seed):
    width = heads * d
    x = md.Tensor(numbers((b, s, 3 * width), seed), requires_grad=True)
    g = numbers((b, s, width), seed + 1)
    packed = ops.packed_attention(x, heads, causal)
    packed.backward(g)
    dx, x.grad = x.grad, None
    q, k, v = (
        x[:, :, i * width : (i + 1) * width].reshape(b, s, heads, d).transpose(1, 2)
        for i in range(3)
    )
    y = ops.scaled_dot_product_attention(q, k, v, is_causal=causal)
    y = y.transpose(1, 2).reshape(b, s, width)
    y.backward(g)
    np.testing.assert_allclose(packed.data, y.data, rtol=1e-12, atol=1e-13)
    np.testing.assert_allclose(dx.data, x.grad.data, rtol=1e-11, atol=1e-13)


def test_a_causal_query_does_not_see_the_future():
    q, k, v = (numbers((1, 1, 130, 4), i) for i in range(3))
    attend = lambda: ops.scaled_dot_product_attention(
        *map(md.Tensor, (q, k, v)), is_causal=True
    ).data.copy()
    before = attend()
    k[:, :, 100:], v[:, :, 100:] = 9, 9
    after = attend()
    np.testing.assert_array_equal(before[:, :, :100], after[:, :, :100])
    assert (before[:, :, 100:] != after[:, :, 100:]).any(-1).all()


def test_a_mask_shifted_by_one_is_killed(monkeypatch):
    """The gradient stays right for what is computed: only the comparison with the formula sees."""
    tile = kernel.softmax_tile
    monkeypatch.setattr(kernel, "softmax_tile", lambda x, ahead, *of: tile(x, ahead + 1, *of))
    q = numbers((1, 1, 4, 2), 0)
    y = ops.scaled_dot_product_attention(*[md.Tensor(q)] * 3, is_causal=True).data
    kernel.forward.formula(q, q, q, wanted := np.empty_like(q), True, 1 / math.sqrt(2))
    assert np.abs(y - wanted).max() > 0.01


# Masks, groups of heads, dropout


def masks(kind: str, shape: tuple, seed: int) -> np.ndarray:
    """Of kind "bool" or "float"; one row in four hides all keys, unless there is one."""
    rng = np.random.default_rng(seed)
    seen = (rng.random(shape) < 0.6) & (rng.random((*shape[:-1], 1)) < 0.75)
    return seen if kind == "bool" else np.where(seen, rng.standard_normal(shape), -np.inf)


@BLOCKS
@pytest.mark.parametrize("shape", [(4, 5), (1, 5), (4, 1), (2, 4, 5), (3, 1, 1, 5), (3, 2, 4, 5)])
def test_gradients_under_masks(queries, shape):
    q, k, v = (numbers((3, 2, n, 2), i) for i, n in enumerate((4, 5, 5)))
    hidden, added = masks("bool", shape, 0), numbers(shape, 3)
    attend = ops.scaled_dot_product_attention
    with tiny_tiles(8, queries):
        gradcheck(lambda q, k, v: attend(q, k, v, md.Tensor(hidden)), [q, k, v])
        gradcheck(attend, [q, k, v, added])


@pytest.mark.parametrize("lead", [(), (2,), (2, 3), (2, 1, 2), ((2, 1), (1, 3), (1, 3))])
def test_gradients_with_any_leading_sizes(lead):
    leads = lead if lead and isinstance(lead[0], tuple) else (lead,) * 3
    q, k, v = (numbers((*a, n, 2), i) for i, (a, n) in enumerate(zip(leads, (3, 4, 4))))
    gradcheck(ops.scaled_dot_product_attention, [q, k, v])
    gradcheck(lambda *x: ops.scaled_dot_product_attention(*x, is_causal=True), [q, k, v])


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("mask", [None, (3, 3), (1, 3, 3), (4, 3, 3), (2, 4, 1, 3)])
def test_grouped_heads_are_repeated_keys(groups, mask):
    q, k, v = (numbers((2, a, 3, 2), i) for i, a in enumerate((4, groups, groups)))
    given = [] if mask is None else [numbers(mask, 5)]
    attend = ops.scaled_dot_product_attention
    gradcheck(lambda *x: attend(*x, enable_gqa=True), [q, k, v, *given])
    many = (md.Tensor(np.repeat(x, 4 // groups, 1)) for x in (k, v))
    few = attend(*map(md.Tensor, (q, k, v, *given)), enable_gqa=True)
    whole = attend(md.Tensor(q), *many, *map(md.Tensor, given))
    np.testing.assert_allclose(few.data, whole.data, rtol=1e-13)
    if groups == 2:  # the control: heads dealt out in turn are another grouping
        dealt = (md.Tensor(np.tile(x, (1, 2, 1, 1))) for x in (k, v))
        other = attend(md.Tensor(q), *dealt, *map(md.Tensor, given))
        assert np.abs(few.data - other.data).max() > 0.01


@BLOCKS
@pytest.mark.parametrize("causal", [False, True])
def test_gradients_through_dropout(queries, causal):
    q, k, v = (numbers((2, 2, 5, 2), i) for i in range(3))
    qkv = numbers((2, 5, 12), 4)
    with tiny_tiles(8, queries), md.random.at(seed=0, step=0, first_sample=0):
        options = {"dropout_p": 0.4, "is_causal": causal}
        gradcheck(lambda *x: ops.scaled_dot_product_attention(*x, **options), [q, k, v])
        gradcheck(lambda x: ops.packed_attention(x, 2, **options), [qkv])


def test_gradients_of_packed_attention_under_masks():
    qkv, padding = numbers((2, 4, 12), 0), md.Tensor(masks("bool", (2, 1, 1, 4), 3))
    gradcheck(lambda x: ops.packed_attention(x, 2, attn_mask=padding), [qkv])
    gradcheck(lambda x, m: ops.packed_attention(x, 2, attn_mask=m), [qkv, numbers((2, 4, 4), 1)])


def test_dropout_keeps_the_mean_and_belongs_to_samples():
    q, k, v = (md.Tensor(numbers((4, 2, 50, 8), i, "float32")) for i in range(3))
    attend = lambda *x, **options: ops.scaled_dot_product_attention(*x, **options).data
    with md.random.at(seed=0, step=3, first_sample=8):
        whole = attend(q, k, v, dropout_p=0.5)
    with md.random.at(seed=0, step=3, first_sample=10):
        part = attend(q[2:], k[2:], v[2:], dropout_p=0.5)
        other = attend(q[2:], k[2:], v[2:], dropout_p=0.5, name="other")
    np.testing.assert_allclose(whole[2:], part, rtol=1e-6)
    assert whole.dtype == "float32" and np.abs(part - other).max() > 0.1
    weights = attend(q, k, md.Tensor(np.eye(50, dtype="f")), dropout_p=0.5)
    plain = attend(q, k, md.Tensor(np.eye(50, dtype="f")))
    kept = weights != 0
    assert abs(kept.mean() - 0.5) < 0.01
    np.testing.assert_allclose(weights[kept], 2 * plain[kept], rtol=1e-6)


@BLOCKS
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_query_that_sees_nothing_gets_zeros(queries, kind):
    q, k, v = (md.Tensor(numbers((1, 1, 3, 2), i), requires_grad=True) for i in range(3))
    mask = np.array([[True] * 3, [False] * 3, [True, False, True]])
    mask = mask if kind == "bool" else np.where(mask, 0, -np.inf)
    with tiny_tiles(3, queries):
        y = ops.scaled_dot_product_attention(q, k, v, md.Tensor(mask))
        y.sum().backward()
    assert not y.data[0, 0, 1].any() and y.data[0, 0, ::2].all()
    assert not q.grad.data[0, 0, 1].any()
    assert all(np.isfinite(x.grad.data).all() for x in (q, k, v))


def test_shapes_that_do_not_fit():
    q = md.ones(2, 2, 3, 4)
    for k, v in ((md.ones(2, 2, 5, 3), md.ones(2, 2, 5, 4)), (md.ones(2, 2, 5, 4), q)):
        with pytest.raises(RuntimeError, match=r"attention: query \(2, 2, 3, 4\), key"):
            ops.scaled_dot_product_attention(q, k, v)
    with pytest.raises(RuntimeError, match=r"input \(2, 5, 8\) with 2 heads"):
        ops.packed_attention(md.ones(2, 5, 8), 2)
    with pytest.raises(
        RuntimeError, match=r"attn_mask \(3, 2\) does not broadcast to \(2, 2, 3, 3"
    ):
        ops.scaled_dot_product_attention(q, q, q, md.ones(3, 2))
    with pytest.raises(RuntimeError, match="enable_gqa=True"):
        ops.scaled_dot_product_attention(q, q[:, :, None][:, [0, 0, 0], 0], q)


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("keys", [3, 40, 300, 600])  # one block of queries; five; two of keys
@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_key_that_is_hidden_spoils_nothing(keys, bad):
    q, k, v = (np.random.default_rng(i).standard_normal((1, 1, keys, 4)) for i in range(3))
    k[..., -1, :] = bad
    y = ops.scaled_dot_product_attention(*map(md.Tensor, (q, k, v)), is_causal=True).data
    wanted = ops.scaled_dot_product_attention(
        *(md.Tensor(x[..., :-1, :]) for x in (q, k, v)), is_causal=True
    )
    np.testing.assert_allclose(y[..., :-1, :], wanted.data, rtol=1e-9, atol=1e-12)
    assert np.isnan(y[..., -1, :]).all()
