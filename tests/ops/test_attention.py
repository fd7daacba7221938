"""Attention: gradients over several blocks of queries, and packed equal to separate."""

import math

import numpy as np
import pytest
from cases import SEEDS, arrays, numbers, tiny_tiles
from hypothesis import example, given, settings
from hypothesis import strategies as st
from minidist.kernels import attention as kernel

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
    hide = kernel._hide_the_future
    monkeypatch.setattr(kernel, "_hide_the_future", lambda p, first: hide(p[..., 1:], first))
    q = numbers((1, 1, 4, 2), 0)
    y = ops.scaled_dot_product_attention(*[md.Tensor(q)] * 3, is_causal=True).data
    assert np.abs(y - kernel.naive(q, q, q, True, 1 / math.sqrt(2))).max() > 0.01


def test_shapes_that_do_not_fit():
    q = md.ones(2, 2, 3, 4)
    for k, v in ((md.ones(2, 2, 5, 3), md.ones(2, 2, 5, 4)), (md.ones(2, 2, 5, 4), q), (q[0], q)):
        with pytest.raises(RuntimeError, match=r"attention: query \(2, 2, 3, 4\), key"):
            ops.scaled_dot_product_attention(q, k, v)
    with pytest.raises(RuntimeError, match=r"input \(2, 5, 8\) with 2 heads"):
        ops.packed_attention(md.ones(2, 5, 8), 2)
    with pytest.raises(TypeError):  # the fourth in PyTorch is a mask, which is not taken
        ops.scaled_dot_product_attention(q, q, q, md.ones(3, 3))
