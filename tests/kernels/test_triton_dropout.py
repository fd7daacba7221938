"""Dropout: tile program ≡ loop ≡ numbers drawn by NumPy, to the bit; and Philox itself."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from minidist.kernels import dropout
from minidist.kernels.dispatch import using
from minidist.kernels.dropout import philox
from minidist.kernels.launch import triton_kernel
from support.cases import LAYOUTS, SEEDS, laid_out, numbers
from support.peak import peak
from support.tritons import both, traffic

import minidist as md
from minidist import ops, random
from minidist.ops.dropout import keep_mask

tl: Any = None

KEYS = st.integers(0, 2**128 - 1)
COUNTS = st.integers(0, 2**128 - 2000) | st.integers(2**64 - 5, 2**64 + 5) | st.integers(0, 9)
KEEP = st.floats(0, 1) | st.integers(0, 2**24).map(lambda k: k / 2**24)
DTYPES = st.sampled_from(["float16", "float32", "float64"])
SHAPES = [(), (0,), (0, 5), (3, 0), (1,), (3, 5), (4, 8), (2, 3, 43), (3, 1040), (2, 1, 1031)]


# Philox itself


@triton_kernel
def _words_kernel(out_ptr, key0: tl.uint64, key1: tl.uint64, low: tl.uint64, high: tl.uint64):
    at = tl.arange(0, 16)
    c0 = low.to(tl.uint64) + at.to(tl.uint64)
    c1 = tl.where(c0 < low.to(tl.uint64), high.to(tl.uint64) + 1, high.to(tl.uint64))
    words = philox(c0, c1, key0.to(tl.uint64), key1.to(tl.uint64))
    for i in tl.static_range(4):
        tl.store(out_ptr + 4 * at + i, words[i])


def words(key, count):
    out = np.zeros((16, 4), np.uint64)
    _words_kernel[(1,)](out, *dropout._words(key), *dropout._words(count))
    return out


def of_numpy(key, count):
    """NumPy adds 1 to its counter before it draws."""
    return np.random.Philox(key=key, counter=count - 1).random_raw(64).reshape(16, 4)


@given(key=KEYS, count=COUNTS.map(lambda c: c + 1))
@example(key=0, count=1)
@example(key=2**128 - 1, count=2**64 - 1)
@settings(max_examples=60)
def test_philox_is_numpy_s(key, count):
    np.testing.assert_array_equal(words(key, count), of_numpy(key, count))


def test_another_key_count_or_order_is_seen():
    wanted = of_numpy(5, 7)
    for found in (words(5, 8), words(5 << 64, 7), words(5, 7)[:, ::-1], words(5, 7 + (1 << 64))):
        assert (found != wanted).any(1).all()


# Dropout


def by_definition(x, key, first, samples, keep, scale):
    """Numbers between 0 and 1 from NumPy's generator, a sample at a time."""
    size = x.size // max(samples, 1)
    mask = np.zeros((samples, size), bool)
    for i in range(samples):
        bits = np.random.Philox(key=key, counter=first + i * -(-size // 8))
        mask[i] = np.random.Generator(bits).random(size, np.float32) < keep
    return x * mask.reshape(x.shape) * scale


def check(x, *drawn):
    wanted = by_definition(x, *drawn)
    for y, kept in both(dropout.forward, x, *drawn):
        np.testing.assert_array_equal(y, wanted)
        assert y.dtype == x.dtype and (np.signbit(y) == np.signbit(wanted)).all()
        for dx in (*both(dropout.backward, x, kept, *drawn), dropout.backward(x, None, *drawn)):
            np.testing.assert_array_equal(dx, wanted)


@given(shape=st.sampled_from(SHAPES), layout=st.sampled_from(LAYOUTS), dtype=DTYPES, seed=SEEDS,
       whole=st.booleans(), key=KEYS, first=COUNTS, keep=KEEP)  # fmt: skip
@settings(max_examples=60)
def test_triton_is_the_loop_is_the_definition(shape, layout, dtype, seed, whole, key, first, keep):
    x = laid_out(numbers(shape, seed, dtype), layout)
    samples = 1 if whole or not shape else shape[0]
    check(x, key, first, samples, keep, 1 / keep if keep > 1e-3 else 0.0)


@given(shape=st.sampled_from(SHAPES), whole=st.booleans(), seed=SEEDS)
@settings(max_examples=40)
def test_the_loop_keeps_the_formula_s_mask(shape, whole, seed):
    """A bit an element, also where samples end in the middle of a byte; each serves the other."""
    x = numbers(shape, seed, "float32")
    drawn = (seed, 9, 1 if whole or not shape else shape[0], 0.6, 1 / 0.6)
    y, kept = dropout.forward.formula(x, *drawn)
    assert np.array_equal(kept, dropout.forward(x, *drawn)[1])
    assert np.array_equal(dropout.backward(x, kept, *drawn), y)
    assert np.array_equal(dropout.backward.formula(x, kept, *drawn), y)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_nan_and_infinity_times_0_are_nan():
    x, drawn = np.full((40,), np.inf, np.float32), (3, 0, 1, 0.5, 2.0)
    x[::3] = np.nan
    wanted = by_definition(x, *drawn)
    y, kept = dropout.forward(x, *drawn)
    np.testing.assert_array_equal(y, wanted)
    np.testing.assert_array_equal(dropout.backward(x, kept, *drawn), wanted)
    assert np.isnan(y).sum() > np.isnan(x).sum() and np.isinf(y).any()


@pytest.mark.parametrize("version", ["numba", "triton", "naive"])
def test_integers_become_floats(version):
    """As a product with a mask and a number does."""
    x = np.arange(12).reshape(3, 4)
    with using(version):
        y, _ = dropout.forward(x, 1, 0, 3, 0.5, 2.0)
    np.testing.assert_array_equal(y, by_definition(x, 1, 0, 3, 0.5, 2.0))
    assert y.dtype == np.float64


@given(keep=KEEP)
@example(keep=1.0)
@example(keep=1 - 2**-30)
@example(keep=2**-24)
def test_the_limit_divides_numbers_as_float32_does(keep):
    near = np.arange(-3, 4) + round(keep * 2**24)
    near = near[(near >= 0) & (near < 2**24)]
    drawn = near.astype(np.float32) / np.float32(2**24)
    np.testing.assert_array_equal(near < dropout.limit(keep), drawn < keep)


@pytest.mark.parametrize("shape, samples", [((3, 1040), 3), ((5, 13), 5), ((7, 13), 1), ((0,), 1)])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_bytes_moved_and_no_mask(shape, samples, dtype):
    """Each way an array is read and one is written; Triton keeps nothing between them."""
    x, drawn = np.ones(shape, dtype), (3, 0, samples, 0.5, 2.0)
    with traffic() as count:
        kept = both(dropout.forward, x, *drawn)[1][1]
        both(dropout.backward, x, None, *drawn)
    assert kept is None
    assert dict(count) == ({"load": 2 * x.nbytes, "store": 2 * x.nbytes} if x.size else {})


@pytest.mark.parametrize("shape", [(1024, 2048), (10240, 201), (1 << 17, 1)])
def test_temporary_memory(shape):
    """None; and a bit of mask for each element."""
    x, drawn = np.ones(shape, np.float32), (3, 0, shape[0], 0.5, 2.0)
    assert peak(dropout.forward, x, *drawn) < 1 << 14
    kept = dropout.forward(x, *drawn)[1]
    assert kept.nbytes == -(-x.size // 8)
    assert peak(dropout.backward, x, kept, *drawn) < 1 << 14


# Its use: masks by name and place


@pytest.mark.parametrize("version", ["numba", "triton", "naive"])
def test_the_operation_s_masks_are_those_of_keep_mask(version):
    x = md.Tensor(numbers((4, 3, 7), 0), requires_grad=True)
    with random.at(1, 2, 30), using(version):
        y = ops.dropout(x, 0.25, name="d")
        mask = keep_mask("d", x.shape, 0.75)
        y.sum().backward()
    np.testing.assert_array_equal(y.data, x.data * mask * (1 / 0.75))
    np.testing.assert_array_equal(x.grad.data, mask * (1 / 0.75))


def test_the_default_stream_is_one_sample():
    x = md.Tensor(np.ones((4, 3, 7)))
    values = []
    for version in ("numba", "triton"):
        md.manual_seed(3)
        with using(version):
            values.append(ops.dropout(x, 0.25).data)
    md.manual_seed(3)
    values.append(keep_mask("", x.shape, 0.75) * (1 / 0.75))
    md.manual_seed(3)
    values.append((random.default_generator().random(x.shape, np.float32) < 0.75) * (1 / 0.75))
    for v in values[1:]:
        np.testing.assert_array_equal(v, values[0])


def test_the_masks_are_pinned():
    """A changed stream changes every run that has dropout."""
    digest = lambda mask: hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()[:16]
    with random.at(1, 2, 3):
        assert digest(keep_mask("d", (2, 3, 17), 0.6)) == "f99c96656db80a7b"
    md.manual_seed(5)
    assert digest(keep_mask("d", (4, 13), 0.6)) == "b35d118b91c27d54"


# The controls: what the assertions above must refuse


@pytest.mark.parametrize("mutant", ["key", "limit", "mask"])
def test_mutants_are_seen(mutant, monkeypatch):
    x = numbers((3, 40), 0)
    check(x, 5, 0, 3, 0.5, 2.0)
    if mutant == "key":
        monkeypatch.setattr(dropout, "_words", lambda n: (n >> 64, n & (2**64 - 1)))
    if mutant == "limit":
        limit = dropout.limit
        monkeypatch.setattr(dropout, "limit", lambda keep: limit(keep) - 2**20)
    if mutant == "mask":
        packed = np.packbits
        monkeypatch.setattr(dropout.xp, "packbits", lambda m, **_: packed(m))
        monkeypatch.setitem(dropout.forward.versions, "numba", dropout.forward.formula)
    with pytest.raises(AssertionError):
        check(x, 5, 0, 3, 0.5, 2.0)
