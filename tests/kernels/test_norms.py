"""Softmax, RMS, batch and group norm, soft cross-entropy, CTC: fast ≡ formula ≡ float64."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minidist.kernels import (
    batch_norm,
    cross_entropy,
    ctc,
    group_norm,
    layer_norm,
    rms_norm,
    softmax,
)
from minidist.kernels.dispatch import using
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


# RMS norm


@DTYPES
@given(n=st.integers(0, 9), h=st.integers(0, 9), layout=st.sampled_from(LAYOUTS), seed=SEEDS)
@settings(max_examples=30)
def test_rms_norm(dtype, n, h, layout, seed):
    x, w, g = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, h), (h,), (n, h)]))
    y, rstd = rms_norm.forward(laid_out(x, layout), w, 0.01)
    dx, dw = rms_norm.backward(laid_out(g, layout), laid_out(x, layout), w, rstd)
    assert rstd.shape == (n,) and rstd.dtype == dtype
    x, w, g = (a.astype("float64") for a in (x, w, g))
    assert close(y, rms_norm.forward.formula(x, w, 0.01)[0], dtype)
    root = np.sqrt((x * x).sum(1, keepdims=True) / max(h, 1) + 0.01)
    normal, u = x / root, g * w
    share = (u * normal).sum(1, keepdims=True) / max(h, 1)
    assert close(dx, (u - normal * share) / root, dtype)
    assert close(dw, (g * normal).sum(0), dtype)


@DTYPES
@pytest.mark.parametrize("weight", [True, False])
def test_rms_norm_of_several_blocks_of_rows_keeps_the_shape_of_the_cotangent(dtype, weight):
    x, g = numbers((200, 6), 0, dtype), numbers((20, 10, 6), 1, dtype)
    w = numbers((6,), 2, dtype) if weight else None
    y, rstd = rms_norm.forward(x, w, 0.1)
    found = y, *rms_norm.backward(g, x, w, rstd)
    x, g, w = (None if a is None else a.astype("float64") for a in (x, g, w))
    y, rstd = rms_norm.forward.formula(x, w, 0.1)
    wanted = y, *rms_norm.backward.formula(g, x, w, rstd)
    assert all(close(a, b, dtype) for a, b in zip(found, wanted, strict=True))


def test_rms_norm_of_nan_and_infinity_leaves_other_rows_alone():
    x = numbers((6, 33), 0, "float32")
    x[1, 3], x[4, 5] = np.nan, np.inf
    with np.errstate(invalid="ignore"):
        y, rstd = rms_norm.forward(x, None, 0.1)
        wanted = rms_norm.forward.formula(x, None, 0.1)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    assert np.isnan(y[1]).all() and np.isnan(y[4, 5]) and not y[4, 6:].any()
    rest = [0, 2, 3, 5]
    alone, short = rms_norm.forward(x[rest], None, 0.1)
    assert np.array_equal(y[rest], alone), "a row depends on other rows"
    dx, whole = rms_norm.backward(x[rest], x[rest], None, short)[0], x[::-1].copy()
    assert np.array_equal(
        rms_norm.backward(whole, whole, None, rstd[::-1].copy())[0][[5, 3, 2, 0]], dx
    )


# Batch norm


def batch_norm_of(x, w, b, g, of_batch=True, eps=0.1, formula=False):
    """Mean, variance, y, dx, dw, db."""
    with using("naive" if formula else "numba"):
        mean, var = batch_norm.moments(x)
        rstd = (1 / np.sqrt(var + eps)).astype(x.dtype)
        y = batch_norm.forward(x, mean, rstd, w, b)
        return mean, var, y, *batch_norm.backward(g, x, mean, rstd, w, of_batch)


@DTYPES
@given(n=st.integers(1, 4), c=st.integers(1, 5), length=st.integers(1, 40), seed=SEEDS,
       layout=st.sampled_from(LAYOUTS), affine=st.booleans())  # fmt: skip
@settings(max_examples=40)
def test_batch_norm(dtype, n, c, length, layout, seed, affine):
    x, g = (laid_out(numbers((n, c, length), seed + i, dtype), layout) for i in range(2))
    w, b = (numbers((c,), seed + i, dtype) if affine else None for i in (2, 3))
    *found, dx, dw, db = batch_norm_of(x, w, b, g)
    fixed = batch_norm_of(x, w, b, g, of_batch=False)[3]
    x, g = (a.astype("float64") for a in (x, g))
    w, b = (w.astype("float64"), b.astype("float64")) if affine else (np.ones(c), np.zeros(c))
    over = {"axis": (0, 2), "keepdims": True}
    deviation = np.sqrt(x.var(**over) + 0.1)
    normal = (x - x.mean(**over)) / deviation
    wanted = x.mean((0, 2)), x.var((0, 2)), normal * w[:, None] + b[:, None]
    assert all(close(a, e, dtype) for a, e in zip(found, wanted, strict=True))
    u = g - g.mean(**over) - normal * (g * normal).mean(**over)
    scale = w[:, None] / deviation
    assert close(dx, u * scale, dtype) and close(fixed, g * scale, dtype)
    assert close(dw, (g * normal).sum((0, 2)), dtype) and close(db, g.sum((0, 2)), dtype)


@DTYPES
@pytest.mark.parametrize("shape", [(200, 3, 1), (200, 3, 2), (0, 3, 1), (0, 3, 5), (2, 3, 0)])
def test_batch_norm_of_several_blocks_of_rows_and_of_no_rows(dtype, shape):
    x, g, w = (numbers(s, i, dtype) for i, s in enumerate([shape, shape, (3,)]))
    mean, rstd = numbers((3,), 4, dtype), numbers((3,), 5, dtype)
    found = [batch_norm.forward(x, mean, rstd, w, w), *batch_norm.backward_affine(g, x, mean, rstd)]
    found.append(batch_norm.backward_input(g, x, mean, rstd, w, w, mean))
    found += batch_norm.moments(x) if x.size else ()
    x, g, w, mean, rstd = (a.astype("float64") for a in (x, g, w, mean, rstd))
    with using("naive"):
        wanted = [batch_norm.forward(x, mean, rstd, w, w),
                  *batch_norm.backward_affine(g, x, mean, rstd),
                  batch_norm.backward_input(g, x, mean, rstd, w, w, mean)]  # fmt: skip
        wanted += batch_norm.moments(x) if x.size else ()
    assert all(close(a, b, dtype) for a, b in zip(found, wanted, strict=True))


@pytest.mark.parametrize("shape", [(300, 2, 1), (6, 2, 50)])
def test_a_channel_whose_mean_is_far_from_0_keeps_the_digits_of_its_variance(shape):
    """Also far from 0 by sample: merged variances are those about the mean of all samples."""
    x = numbers(shape, 0)
    x[:, 0] += 1024
    x[::2, 1] += 64
    mean, var = batch_norm.moments(x.astype("float32"))
    assert np.abs(mean / x.mean((0, 2)) - 1).max() < 1e-6
    assert np.abs(var / x.astype("float32").astype("float64").var((0, 2)) - 1).max() < 1e-5


@pytest.mark.parametrize("length", [1, 5])
def test_batch_norm_of_nan_and_infinity_leaves_other_channels_alone(length):
    x, g = numbers((7, 4, length), 0, "float32"), numbers((7, 4, length), 1, "float32")
    x[2, 1, 0], x[3, 2, 0] = np.nan, np.inf
    rest, w = [0, 3], np.ones(2, "float32")
    with np.errstate(invalid="ignore"):
        found, wanted = (batch_norm_of(x, None, None, g, formula=f) for f in (False, True))
        alone = batch_norm_of(x[:, rest], w, None, g[:, rest])
    for a, b, c in zip(found, wanted, alone, strict=True):
        np.testing.assert_array_equal(np.isnan(a), np.isnan(b))
        a = a[:, rest] if a.ndim == 3 else a[rest]
        assert np.array_equal(a, c), "a channel depends on other channels"
    g[1, 0, 0] = np.inf
    dx = batch_norm.backward(g, x, w[[0] * 4], w[[0] * 4], None, False)[0]
    assert np.array_equal(dx, g), "statistics that are constants spread nothing"


def test_cotangents_of_batch_norm_keep_the_shape_of_g():
    x, g, w = (numbers(s, i) for i, s in enumerate([(2, 3, 8), (2, 3, 2, 4), (3,)]))
    for of_batch in (True, False):
        deep = batch_norm.backward(g, x, w, w, w, of_batch)
        flat = batch_norm.backward(g.reshape(x.shape), x, w, w, w, of_batch)
        assert deep[0].shape == g.shape
        assert all(np.array_equal(a.ravel(), b.ravel()) for a, b in zip(deep, flat, strict=True))


# Group norm


@DTYPES
@given(n=st.integers(0, 4), groups=st.integers(1, 3), each=SIZES, seed=SEEDS,
       length=st.integers(0, 40), affine=st.booleans(),
       layout=st.sampled_from(LAYOUTS))  # fmt: skip
@settings(max_examples=40)
def test_group_norm(dtype, n, groups, each, length, layout, seed, affine):
    c = groups * each
    x, g = (laid_out(numbers((n, c, length), seed + i, dtype), layout) for i in range(2))
    w, b = (numbers((c,), seed + i, dtype) if affine else None for i in (2, 3))
    y, stats = group_norm.forward(x, w, b, groups, 0.1)
    found = y, *group_norm.backward(g[:, :, None], x, w, groups, stats)
    assert stats.shape == (2, n * groups)
    x, g, w, b = (None if a is None else a.astype("float64") for a in (x, g, w, b))
    with using("naive"):
        y, stats = group_norm.forward(x, w, b, groups, 0.1)
        wanted = y, *group_norm.backward(g[:, :, None], x, w, groups, stats)
    assert all(close(a, e, dtype) for a, e in zip(found, wanted, strict=True))


def test_group_norm_is_layer_norm_of_groups():
    x, w = numbers((4, 6, 5), 0), numbers((6,), 1)
    one = group_norm.forward(x, None, None, 2, 0.1)
    rows = layer_norm.forward(x.reshape(8, 15), None, None, 0.1)
    np.testing.assert_allclose(one[0].reshape(8, 15), rows[0], rtol=1e-12)
    np.testing.assert_allclose(one[1], rows[1], rtol=1e-12)
    scaled = group_norm.forward(x, w, w, 2, 0.1)[0]
    np.testing.assert_allclose(scaled, one[0] * w[:, None] + w[:, None], rtol=1e-12)


def test_group_norm_of_nan_and_a_far_mean_leaves_other_groups_alone():
    x, g = numbers((3, 4, 33), 0, "float32"), numbers((3, 4, 33), 1, "float32")
    x[1, 2, 5], x[0, 2:] = np.nan, x[0, 2:] + 1024
    y, stats = group_norm.forward(x, None, None, 2, 1e-5)
    dx = group_norm.backward(g, x, None, 2, stats)[0]
    with using("naive"):
        wanted = group_norm.forward(x.astype("float64"), None, None, 2, 1e-5)[0]
    np.testing.assert_array_equal(np.isnan(y), np.isnan(wanted))
    assert np.nanmax(np.abs(y - wanted)) < 5e-4
    z, stats = group_norm.forward(x[:, :2], None, None, 1, 1e-5)
    assert np.array_equal(z, y[:, :2])
    assert np.array_equal(group_norm.backward(g[:, :2], x[:, :2], None, 1, stats)[0], dx[:, :2])


# Cross-entropy against weights of all classes


@DTYPES
@given(n=st.integers(0, 9), v=SIZES, tile=st.integers(1, 30), seed=SEEDS)
@settings(max_examples=30)
def test_soft_cross_entropy(dtype, n, v, tile, seed):
    x, q, g = (numbers(s, seed + i, dtype) for i, s in enumerate([(n, v), (n, v), (n,)]))
    x *= 4
    with tiny_tiles(tile):
        loss, lse = cross_entropy.soft_forward(x, q)
        dx = cross_entropy.soft_backward(g, x, q, lse)
    dq = cross_entropy.soft_backward_target(g, x, lse)
    x, q, g = (a.astype("float64") for a in (x, q, g))
    assert close(loss, cross_entropy.soft_naive(x, q), dtype)
    p = softmax.forward.formula(x) if n else x
    assert close(dx, (p * q.sum(1, keepdims=True) - q) * g[:, None], dtype)
    assert close(dq, -np.log(p) * g[:, None], dtype)


def test_smoothed_targets():
    q = cross_entropy.smoothed(np.array([1, 0]), np.array([True, False]), np.array([1.0, 2.0]), 0.2)
    np.testing.assert_allclose(q, [[0.1, 1.8], [0, 0]])


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
    loss, _, _ = ctc.forward(logs[:, None], label[None], np.array([t]), np.array([len(label)]), 0)
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
