"""Softmax, RMS and batch norm, soft cross-entropy, CTC: loop or tiles ≡ formula ≡ float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import batch_norm, cross_entropy, ctc, huber, rms_norm, softmax
from support.cases import LAYOUTS, SEEDS, laid_out, numbers, tiny_tiles

BOUNDS = {"float32": 1e-5, "float64": 1e-12}
DTYPES = pytest.mark.parametrize("dtype", BOUNDS)
SIZES = st.integers(1, 9)


def close(a: np.ndarray, b: np.ndarray, dtype: str) -> bool:
    assert a.shape == b.shape and a.dtype == dtype
    return bool(np.abs(a - b).max(initial=0) <= BOUNDS[dtype] * max(1, np.abs(b).max(initial=0)))


# Softmax


@DTYPES
@given(shape=st.lists(st.integers(0, 4), min_size=1, max_size=3), axis=st.integers(0, 2),
       tile=st.integers(1, 30), layout=st.sampled_from(LAYOUTS), seed=SEEDS,
       spread=st.sampled_from([0, 10, 40]))  # fmt: skip
@settings(max_examples=60)
def test_softmax_along_an_axis(dtype, shape, axis, tile, layout, seed, spread):
    """Rows that lie far apart too: one shift for a tile would lose the lower ones."""
    axis = axis % len(shape)
    shape[axis] += 1
    x = numbers(tuple(shape), seed, dtype)
    x += spread * np.random.default_rng(seed).integers(-9, 9, x.sum(axis, keepdims=True).shape)
    x = laid_out(x, layout)
    wide, g = x.astype("float64"), numbers(tuple(shape), seed + 1, dtype)
    expected = softmax.forward.formula(wide, axis)
    with tiny_tiles(tile):
        y, logs = softmax.forward(x, axis), softmax.log_forward(x, axis)
        dx = softmax.backward(laid_out(g, layout), y, axis)
        dl = softmax.log_backward(laid_out(g, layout), logs, axis)
    assert close(y, expected, dtype)
    assert close(logs, np.log(expected), dtype)
    gw = g.astype("float64")
    assert close(dx, expected * (gw - (gw * expected).sum(axis, keepdims=True)), dtype)
    assert close(dl, gw - expected * gw.sum(axis, keepdims=True), dtype)


def test_nan_infinity_and_masked_rows_stay_in_their_rows():
    """A row of -inf has no probabilities: NaN, as in PyTorch. Neighbours are not touched."""
    x = numbers((6, 37), 0, "float32")
    x[1], x[2, 5], x[3, 7], x[4, 3:] = -np.inf, np.nan, np.inf, -np.inf
    for forward, backward in ((softmax.forward, softmax.backward),
                              (softmax.log_forward, softmax.log_backward)):  # fmt: skip
        with np.errstate(invalid="ignore"):
            y, wanted = forward(x, 1), forward.formula(x.astype("float64"), 1)
        np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
        assert np.isnan(y[[1, 2, 3]]).any(1).all() and not np.isnan(y[[0, 4, 5]]).any()
        alone = forward(x[[0, 4, 5]], 1)
        assert np.array_equal(alone, y[[0, 4, 5]]), "a row depends on other rows"
        assert np.array_equal(backward(x, y, 1)[[0, 5]], backward(x[[0, 5]], y[[0, 5]], 1))


def test_softmax_of_extremes_and_of_masked_rows():
    x = np.array([[1e4, -1e4, 0], [-1e4, -1e4, -1e4], [-np.inf, 0, 0]], np.float32)
    np.testing.assert_allclose(softmax.forward(x, 1), [[1, 0, 0], [1 / 3] * 3, [0, 0.5, 0.5]])
    assert softmax.forward(np.float32(3), 0) == 1 and softmax.log_forward(np.float32(3), 0) == 0


# Norms


@DTYPES
@given(n=st.integers(0, 9), h=SIZES, tile=st.integers(1, 30), layout=st.sampled_from(LAYOUTS),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=30)
def test_rms_norm(dtype, n, h, tile, layout, seed):
    x, w, g = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, h), (h,), (n, h)]))
    with tiny_tiles(tile):
        y, scale = rms_norm.forward(x, w, 0.01)
        dx, dw = rms_norm.backward(laid_out(g, layout), x, w, scale)
    x, w, g = (a.astype("float64") for a in (x, w, g))
    assert close(y, rms_norm.naive(x, w, 0.01), dtype)
    root = np.sqrt((x * x).mean(1, keepdims=True) + 0.01)
    normal, u = x / root, g * w
    assert close(dx, (u - normal * (u * normal).mean(1, keepdims=True)) / root, dtype)
    assert close(dw, (g * normal).sum(0), dtype)


def test_rms_norm_without_a_weight_keeps_the_shape_of_the_cotangent():
    x, g = numbers((6, 4), 0), numbers((2, 3, 4), 1)
    y, scale = rms_norm.forward(x, None, 0.1)
    ones = rms_norm.backward(g, x, np.ones(4), scale)
    np.testing.assert_allclose(y, rms_norm.naive(x, 1, 0.1))
    for got, expected in zip(rms_norm.backward(g, x, None, scale), ones, strict=True):
        np.testing.assert_array_equal(got, expected)
    assert ones[0].shape == g.shape


@DTYPES
@given(n=st.integers(1, 4), c=st.integers(1, 5), length=st.integers(1, 5), tile=st.integers(1, 30),
       layout=st.sampled_from(LAYOUTS), seed=SEEDS)  # fmt: skip
@settings(max_examples=30)
def test_batch_norm(dtype, n, c, length, tile, layout, seed):
    x = laid_out(numbers((n, c, length), seed, dtype), layout)
    w, b, g = (numbers(s, seed + i, dtype) for i, s in enumerate([c, c, x.shape], 1))
    with tiny_tiles(tile):
        mean, var = batch_norm.moments(x)
        rstd = (1 / np.sqrt(var + 0.1)).astype(dtype)
        y = batch_norm.forward(x, mean, rstd, w, b)
        dx, dw, db = batch_norm.backward(g, x, mean, rstd, w, True)
        fixed = batch_norm.backward(g, x, mean, rstd, w, False)[0]
    x, w, b, g = (a.astype("float64") for a in (x, w, b, g))
    assert close(y, batch_norm.naive(x, w, b, 0.1), dtype)
    normal = batch_norm.naive(x, np.ones(c), np.zeros(c), 0.1)
    over = {"axis": (0, 2), "keepdims": True}
    u = g - g.mean(**over) - normal * (g * normal).mean(**over)
    scale = w[:, None] / np.sqrt(x.var(**over) + 0.1)
    assert close(dx, u * scale, dtype) and close(fixed, g * scale, dtype)
    assert close(dw, (g * normal).sum((0, 2)), dtype) and close(db, g.sum((0, 2)), dtype)


# Cross-entropy against weights of all classes


@DTYPES
@given(n=st.integers(0, 9), v=SIZES, layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=30)
def test_soft_cross_entropy(dtype, n, v, layout, seed):
    x, q, g = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, v), (n, v), (n,)]))
    x, q = laid_out(x * 4, layout), laid_out(q, layout)
    loss, sums = cross_entropy.soft_forward(x, q)
    dx = cross_entropy.soft_backward(g, x, q, sums)
    dq = cross_entropy.soft_backward_target(g, x, sums)
    x, q, g = (a.astype("float64") for a in (x, q, g))
    p = softmax.forward.formula(x)
    assert close(loss, -(q * np.log(p)).sum(1), dtype)
    assert close(loss, cross_entropy.soft_forward.formula(x, q)[0], dtype)
    assert close(dx, (p * q.sum(1, keepdims=True) - q) * g[:, None], dtype)
    assert close(dq, -np.log(p) * g[:, None], dtype)


def test_soft_cross_entropy_keeps_the_digits_beside_a_large_maximum():
    """Of logits 1e6 and 1e6 + 1/2: maximum and logarithm added up would be a multiple of 1/16."""
    x, q = np.array([[1e6, 1e6 + 0.5]], "float32"), np.array([[0.5, 0.5]], "float32")
    exact = cross_entropy.soft_forward.formula(x.astype(float), q)[0]
    np.testing.assert_allclose(cross_entropy.soft_forward(x, q)[0], exact, rtol=1e-6)
    together = np.float32(np.logaddexp(*x[0].astype(float)))  # the control
    assert abs((q * (together - x)).sum() - exact) > 1e-3


def test_smoothed_targets():
    q = cross_entropy.smoothed(np.array([1, 0]), np.array([True, False]), np.array([1.0, 2.0]), 0.2)
    np.testing.assert_allclose(q, [[0.1, 1.8], [0, 0]])


# Huber's loss


@DTYPES
@given(shape=st.lists(st.integers(0, 9), max_size=3), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=30)
def test_huber(dtype, shape, layout, seed):
    g, d = (np.asarray(numbers(tuple(shape), seed + i, dtype)) for i in range(2))
    d = laid_out(d * 2, layout)
    for scale in (1.0, 0.5):
        y, dd = huber.forward(d, 0.5, scale), huber.backward(laid_out(g, layout), d, 0.5, scale)
        size, wide = np.abs(d.astype("f8")), g.astype("f8")
        exact = np.where(size < 0.5, size * size / 2, 0.5 * (size - 0.25)) / scale
        assert close(y, exact, dtype)
        assert close(dd, wide * np.clip(d, -0.5, 0.5) / scale, dtype)


def test_huber_of_edges():
    d = np.array([0.5, -0.5, 1e300, -1e300, np.inf, -np.inf, np.nan])
    y, dd = huber.forward(d, 0.5, 0.5), huber.backward(np.ones(7), d, 0.5, 0.5)
    np.testing.assert_array_equal(y, [0.25, 0.25, 1e300, 1e300, np.inf, np.inf, np.nan])
    np.testing.assert_array_equal(dd, [1, -1, 1, -1, 1, -1, np.nan])


# CTC


@given(t=st.integers(0, 5), classes=st.integers(2, 3), seed=SEEDS,
       label=st.lists(st.integers(1, 2), max_size=3))  # fmt: skip
@settings(max_examples=60)
def test_ctc_sums_over_all_alignments(t, classes, seed, label):
    label = np.array([min(c, classes - 1) for c in label], int)
    logs = (
        np.log(softmax.forward.formula(numbers((t, classes), seed)))
        if t
        else np.zeros((0, classes))
    )
    loss, _ = ctc.forward(logs[:, None], label[None], np.array([t]), np.array([len(label)]), 0)
    with np.errstate(divide="ignore"):
        np.testing.assert_allclose(loss[0], ctc.naive(logs, label), rtol=1e-10)


def test_ctc_of_samples_of_all_lengths_is_ctc_of_each():
    rng = np.random.default_rng(0)
    logs = np.log(softmax.forward.formula(rng.standard_normal((7 * 4, 5)))).reshape(7, 4, 5)
    labels, sizes = rng.integers(1, 5, (4, 3)), np.array([3, 2, 0, 1])
    lengths = np.array([7, 5, 3, 1])
    padded = ctc.padded(labels, sizes, 0)
    losses, *_ = ctc.forward(logs, padded, lengths, sizes, 0)
    for i, (t, s) in enumerate(zip(lengths, sizes)):
        np.testing.assert_allclose(losses[i], ctc.naive(logs[:t, i], labels[i, :s]), rtol=1e-10)
    np.testing.assert_array_equal(
        ctc.padded(np.concatenate([x[:s] for x, s in zip(labels, sizes)]), sizes, 0), padded
    )
