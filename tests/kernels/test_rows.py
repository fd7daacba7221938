"""Layer norm, cross-entropy, embedding, linear and attention: tiled ≡ naive ≡ float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import attention, cross_entropy, embedding, layer_norm, linear, softmax
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, tiny_tiles

BOUNDS = {"float32": 5e-6, "float64": 1e-13}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
SIZES = st.integers(1, 9)


def close(a: np.ndarray, b: np.ndarray, dtype: str) -> bool:
    assert a.shape == b.shape
    scale = max(1.0, np.abs(b).max(initial=0))
    return bool(np.abs(a - b).max(initial=0) <= BOUNDS[dtype] * scale)


# Layer norm


@DTYPES
@given(n=st.integers(0, 9), h=SIZES, tile=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=30)
def test_layer_norm(dtype, n, h, tile, seed):
    x, w, b = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, h), (h,), (h,)]))
    with tiny_tiles(tile):
        y, _ = layer_norm.forward(x, w, b, 0.01)
    assert y.dtype == dtype
    assert close(y, layer_norm.forward.formula(x, w, b, 0.01)[0], dtype)
    wide = (a.astype("float64") for a in (x, w, b))
    assert close(y, layer_norm.forward.formula(*wide, 0.01)[0], dtype)


@DTYPES
@given(n=st.integers(0, 9), h=SIZES, tile=st.integers(1, 30), layout=st.sampled_from(LAYOUTS),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=30)
def test_layer_norm_backward(dtype, n, h, tile, layout, seed):
    x, w, g = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, h), (h,), (n, h)]))
    with tiny_tiles(tile):
        _, stats = layer_norm.forward(x, w, None, 0.01)
        dx, dw, db = layer_norm.backward(laid_out(g, layout), x, w, stats)
    x, w, g = (a.astype("float64") for a in (x, w, g))
    deviation = np.sqrt(x.var(1, keepdims=True) + 0.01)
    normal = (x - x.mean(1, keepdims=True)) / deviation
    u = g * w
    expected = u - u.mean(1, keepdims=True) - normal * (u * normal).mean(1, keepdims=True)
    assert close(dx, expected / deviation, dtype)
    assert close(dw, (g * normal).sum(0), dtype) and close(db, g.sum(0), dtype)


def test_layer_norm_of_equal_and_huge_rows():
    x = np.array([[3.0] * 4, [1e4, -1e4, 1e4, -1e4], [1e15, 0, 0, 0]], np.float32)
    y, stats = layer_norm.forward(x, None, None, 1e-5)
    dx, _, _ = layer_norm.backward(np.ones_like(x), x, None, stats)
    assert np.isfinite(y).all() and np.isfinite(dx).all()
    np.testing.assert_array_equal(y[0], 0)


@DTYPES
@pytest.mark.parametrize("weight, bias", [(True, True), (True, False), (False, False)])
def test_layer_norm_with_and_without_weight_and_bias(dtype, weight, bias):
    """Of 200 rows, so that the cotangents of weight and bias take more than one block of rows."""
    x, g = numbers((200, 6), 0, dtype), numbers((200, 6), 1, dtype)
    w, b = (numbers((6,), i, dtype) if there else None for i, there in ((2, weight), (3, bias)))
    y, stats = layer_norm.forward(x, w, b, 1.0)
    dx, dw, db = layer_norm.backward(g.reshape(20, 10, 6), x, w, stats)
    x, g, w, b = (None if a is None else a.astype("float64") for a in (x, g, w, b))
    wanted, stats = layer_norm.forward.formula(x, w, b, 1.0)
    assert close(y, wanted, dtype)
    dxw, dww, dbw = layer_norm.backward.formula(g, x, w, stats)
    assert close(dx, dxw.reshape(20, 10, 6), dtype)
    assert close(dw, dww, dtype) and close(db, dbw, dtype)


def test_a_mean_far_from_0_costs_the_variance_no_digits():
    x = numbers((40, 64), 0)
    x[7] += 1024
    narrow = x.astype("float32")
    y, _ = layer_norm.forward(narrow, None, None, 1e-5)
    expected, _ = layer_norm.forward.formula(narrow.astype("float64"), None, None, 1e-5)
    assert np.abs(y - expected).max() < 5e-4


def test_a_row_of_nan_leaves_the_others_alone():
    x = numbers((5, 33), 0, "float32")
    x[2, 3] = np.nan
    y, stats = layer_norm.forward(x, None, None, 1e-5)
    dx, _, _ = layer_norm.backward(x, x, None, stats)
    rest = [0, 1, 3, 4]
    alone, stats = layer_norm.forward(x[rest], None, None, 1e-5)
    assert np.isnan(y[2]).all() and np.array_equal(y[rest], alone)
    assert np.array_equal(dx[rest], layer_norm.backward(x[rest], x[rest], None, stats)[0])


# Cross-entropy


@DTYPES
@given(n=st.integers(0, 9), v=SIZES, tile=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=30)
def test_cross_entropy(dtype, n, v, tile, seed):
    logits = numbers((n, v), seed, dtype) * 4
    target = np.random.default_rng(seed).integers(0, v, n)
    with tiny_tiles(tile):
        loss, _, _ = cross_entropy.forward(logits, target)
    assert loss.dtype == dtype
    assert close(loss, cross_entropy.naive(logits, target), dtype)
    assert close(loss, cross_entropy.naive(logits.astype("float64"), target), dtype)


@DTYPES
@given(n=st.integers(0, 9), v=SIZES, tile=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=30)
def test_cross_entropy_backward(dtype, n, v, tile, seed):
    logits, g = numbers((n, v), seed, dtype) * 4, numbers((n,), seed + 1, dtype)
    target = np.random.default_rng(seed).integers(0, v, n)
    with tiny_tiles(tile):
        _, e, total = cross_entropy.forward(logits, target)
        dlogits = cross_entropy.backward(g, e, total, target)
    wide = np.exp(logits.astype("float64"))
    softmax = wide / wide.sum(1, keepdims=True)
    assert close(dlogits, (softmax - np.eye(v)[target]) * g[:, None], dtype)


@pytest.mark.parametrize("dtype", BOUNDS)
@pytest.mark.parametrize("top", [1e4, 1e30])
def test_cross_entropy_of_extremes(dtype, top):
    logits = np.array([[top, -top, 0], [-top, -top, -top]], dtype)
    loss, e, total = cross_entropy.forward(logits, np.array([1, 2]))
    np.testing.assert_allclose(loss, [2 * np.array(top, dtype), np.log(3)], rtol=1e-6)
    dlogits = cross_entropy.backward(np.ones(2, dtype), e, total, np.array([1, 2]))
    np.testing.assert_allclose(dlogits, [[1, -1, 0], [1 / 3, 1 / 3, -2 / 3]], rtol=1e-6)


@DTYPES
@pytest.mark.parametrize("least", [0.0, 1e-30, np.inf])
@pytest.mark.parametrize("shift", [0, 19, -19, 60, -60, 300])
def test_cross_entropy_of_logits_that_lie_anywhere(dtype, shift, least, monkeypatch):
    """With or without a shift; all, some or no rows by the ratio of exponentials."""
    monkeypatch.setattr(cross_entropy, "LEAST", least)
    logits = (numbers((30, 9), 0) * 4 + shift).astype(dtype)
    target, g = np.arange(30) % 9, numbers((30,), 1, dtype)
    loss, e, total = cross_entropy.forward(logits, target)
    wide = logits.astype("float64")
    assert close(loss, cross_entropy.naive(wide, target), dtype)
    expected = (softmax.forward.formula(wide) - np.eye(9)[target]) * g[:, None]
    assert close(cross_entropy.backward(g, e, total, target), expected, dtype)


@DTYPES
def test_cross_entropy_of_targets_that_are_hardly_possible(dtype):
    logits = np.array([[0, -50], [0, -75], [0, -100], [0, -1000], [0, -np.inf], [0, 0]], dtype)
    loss, *_ = cross_entropy.forward(logits, np.ones(6, int))
    np.testing.assert_allclose(loss, [50, 75, 100, 1000, np.inf, np.log(2)], rtol=1e-6)
    wide = np.array([[19.5, -68.5, 0], [19, 19, 19]], dtype)  # a ratio of 1e38 and more
    loss, *_ = cross_entropy.forward(wide, np.ones(2, int))
    np.testing.assert_allclose(loss, [88, np.log(3)], rtol=1e-6)


def test_without_the_maximum_taken_off_there_is_no_answer():
    logits = np.array([[1e4, 0.0]])
    with np.errstate(over="ignore"):
        assert not np.isfinite(np.log(np.exp(logits).sum()))
    assert cross_entropy.forward(logits, np.array([1]))[0] == 1e4


# Embedding


@DTYPES
@given(n=st.integers(0, 20), h=st.integers(0, 4), rows=SIZES, layout=st.sampled_from(LAYOUTS),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=30)
def test_embedding_backward(dtype, n, h, rows, layout, seed):
    g, index = numbers((n, h), seed, dtype), np.random.default_rng(seed).integers(0, rows, n)
    table = embedding.backward(laid_out(g, layout), index, rows)
    assert table.dtype == dtype
    assert close(table, embedding.naive_backward(g, index, rows), dtype)
    assert close(table, np.eye(rows)[index].T @ g.astype("float64"), dtype)


@pytest.mark.parametrize("rows", [1, 256, 257, 65536, 65537])
@pytest.mark.parametrize("picks", ["once", "often", "one"])
def test_embedding_of_rows_picked_once_or_often(rows, picks):
    rng = np.random.default_rng(rows)
    often = rng.integers(max(rows - 8, 0), rows, 100)
    index = {"once": rng.permutation(rows)[:100], "often": often, "one": np.full(100, rows - 1)}
    g = rng.integers(-99, 99, (len(index[picks]), 3)).astype("float32")  # sums are exact
    table = embedding.backward(g, index[picks], rows)
    np.testing.assert_array_equal(table, embedding.naive_backward(g, index[picks], rows))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("index", ["uint8", "int32", "int64", "uint64"])
def test_embedding_forward(index, layout):
    table, index = laid_out(numbers((9, 4), 0), layout), np.array([[3, 8], [0, 3]], index)
    np.testing.assert_array_equal(embedding.forward(table, index), table[index])
    np.testing.assert_array_equal(embedding.forward(table, index[0, 0]), table[3])


# Linear


@DTYPES
@pytest.mark.parametrize("n", [0, 1, 5, 256, 257])
def test_linear(dtype, n):
    x, w, b = (numbers(s, i, dtype) for i, s in enumerate([(n, 3), (4, 3), (4,)]))
    expected = x.astype("float64") @ w.T.astype("float64")
    for rows in (2, 256):
        with tiny_tiles(1, rows=rows):
            assert close(linear.forward(x, w, b), expected + b, dtype)
            assert close(linear.forward(x, w, None), expected, dtype)
    assert linear.forward(x, w, b).dtype == dtype


@DTYPES
@given(n=st.integers(0, 200), h=SIZES, layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=30)
def test_the_gradient_of_a_bias(dtype, n, h, layout, seed):
    g = laid_out(numbers((n, h), seed, dtype), layout)
    db = linear.backward_bias(g)
    assert db.dtype == dtype and close(db, g.astype("float64").sum(0), dtype)
    for j in range(h):
        assert linear.backward_bias(g[:, j : j + 1]) == db[j], "a unit depends on other units"


def test_the_gradient_of_a_bias_of_nan_and_of_many_rows():
    """A sum over all rows in their order would be off by more than the bound."""
    g = np.full((100_000, 3), 0.1, "float32")
    exact = 100_000 * float(g[0, 0])
    assert np.abs(linear.backward_bias(g) / exact - 1).max() < 1e-5
    assert abs(float(g[:, 0].cumsum(dtype="float32")[-1]) / exact - 1) > 1e-5
    g[70_000, 1] = np.nan
    np.testing.assert_array_equal(np.isnan(linear.backward_bias(g)), [False, True, False])


# Attention


@DTYPES
@pytest.mark.parametrize("queries", [1, 3, 4, 64])
@given(b=st.integers(0, 2), heads=st.integers(1, 3), s=st.integers(0, 9), t=SIZES,
       d=st.integers(1, 3), causal=st.booleans(), elements=st.sampled_from([1, 9, 1 << 14]),
       layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=20)
def test_attention(dtype, queries, b, heads, s, t, d, causal, elements, layout, seed):
    q, k, v = (numbers((b, heads, n, d), seed + i, dtype) for i, n in enumerate((s, t, t)))
    q, k, v = (laid_out(a, layout) for a in (q, k, v))
    out = laid_out(np.full((b, heads, s, d), np.nan, dtype), layout)
    with tiny_tiles(elements, queries):
        attention.forward(q, k, v, out, causal, 0.5)
    assert close(out, attention.naive(q, k, v, causal, 0.5), dtype)
    wide = (a.astype("float64") for a in (q, k, v))
    assert close(out, attention.naive(*wide, causal, 0.5), dtype)


def run(queries: int, causal: bool, s: int, t: int) -> list[np.ndarray]:
    """Output and three gradients, computed in blocks of some number of queries."""
    q, k, v, g = (numbers((2, 3, n, 4), i) for i, n in enumerate((s, t, t, s)))
    out, *grads = (np.full(a.shape, np.nan) for a in (q, q, k, v))
    with tiny_tiles(16, queries):
        p = attention.forward(q, k, v, out, causal, 0.5)
        attention.backward(g, q, k, v, out, p, *grads, causal, 0.5)
    return [out, *grads]


@pytest.mark.parametrize("s, t", [(1, 1), (9, 9), (9, 5), (5, 9), (64, 64), (65, 65)])
def test_attention_in_blocks_is_attention_in_one(s, t):
    for causal in (False, True):
        whole = run(1000, causal, s, t)
        for queries in (1, 3, 4, 63, 64):
            for a, b in zip(run(queries, causal, s, t), whole):
                assert close(a, b, "float64")


def test_attention_of_extremes():
    q = np.full((1, 1, 5, 2), 1e2, np.float32)
    k = q * np.array([1.0, -1.0, 1.0, 1.0, 1.0], np.float32)[:, None]  # scores of ±2e4
    v, out = numbers((1, 1, 5, 2), 0, "float32"), np.empty_like(q)
    attention.forward(q, k, v, out, False, 1.0)
    kept = v[:, :, [0, 2, 3, 4]].mean(2)
    np.testing.assert_allclose(out[0, 0], np.repeat(kept[0], 5, 0), rtol=1e-5, atol=1e-6)


def test_float16_rows_far_apart_keep_their_digits():
    logits = (np.random.default_rng(0).standard_normal((300, 10)) * 4).astype(np.float16)
    target = np.arange(300) % 10
    wide = logits.astype(np.float64)
    losses, *saved = cross_entropy.forward(logits, target)
    np.testing.assert_allclose(losses, cross_entropy.naive(wide, target), rtol=5e-3, atol=5e-3)
    d = cross_entropy.backward(np.ones(300, np.float16), *saved, target)
    expected = softmax.forward.formula(wide) - np.eye(10)[target]
    np.testing.assert_allclose(d, expected, atol=2e-3)
    np.testing.assert_allclose(
        softmax.forward(logits, -1), softmax.forward.formula(wide), atol=2e-3
    )
