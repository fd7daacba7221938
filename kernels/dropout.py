"""Dropout (Srivastava et al. 2014) whose mask follows from a key and a count, not from a layout.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a count
into 256 random bits, eight numbers of 32 bits: no state, so any part may be drawn anywhere, and the
loop and a GPU draw to the last bit what NumPy draws. The elements of a sample take the numbers of
counts of its own, in order; the numbers left over in its last count are not used.

The ladder, n numbers of b bytes:

- formula: numbers, mask and both products stream through memory, one array after another: forward
  moves 6nb + 6n bytes.
- loop: some counts are drawn, and their elements multiplied while the numbers are in the cache.
  Forward reads x and writes y, 2nb bytes, and n/8 bytes of mask, a bit an element. Drawing takes
  longer than the traffic, so backward reads the mask: 2nb + n/8 bytes.
- tile program: a count is worked out in the registers of one thread, and its eight elements are
  multiplied there. It stores no mask, for drawing again hides behind the traffic.
"""

from __future__ import annotations

import math
from typing import Any

import numpy

from . import arrays as xp
from .capture import refuse
from .dispatch import formula
from .half_precision import is_half
from .launch import contiguous, triton_kernel
from .loops import Bytes, F, Instruction, Out, OutBytes, Word, helper, loop

tl: Any = None  # Triton's language, once a kernel is launched

NUMBERS = 8  # of 32 bits that Philox makes of one count
COUNTS = 128  # a program: a count a thread, whose eight numbers are two loads of 16 bytes


# The formula


@formula
def forward(
    x: xp.ndarray, key: int, first: int, samples: int, keep: float, scale: float
) -> tuple[xp.ndarray, Any]:
    """x times scale where the number drawn is under `keep`, x times 0 elsewhere; and the mask.

    x has equal parts, `samples` of them, the first at count `first`; its numbers are (bits >> 8)
    / 2²⁴, from Philox's words in order, the low half of each first.
    """
    kept = mask(x.shape, key, first, samples, keep)
    return x * kept * scale, xp.packbits(kept, bitorder="little")


@formula
def backward(
    g: xp.ndarray, kept: Any, key: int, first: int, samples: int, keep: float, scale: float
) -> xp.ndarray:
    """g times scale where forward kept, times 0 elsewhere; the mask is drawn again if it is None.

    The map is linear, and its own transpose.
    """
    if kept is None:
        return forward.formula(g, key, first, samples, keep, scale)[0]
    kept = xp.unpackbits(kept, count=g.size, bitorder="little").reshape(g.shape)
    return g * kept.view(bool) * scale


def mask(shape: tuple[int, ...], key: int, first: int, samples: int, keep: float) -> xp.ndarray:
    """The mask as one array, True where dropout keeps, from NumPy's own numbers.

    Attention and recurrent layers, which drop inside their own operation, take this one.
    """
    size = math.prod(shape) // max(samples, 1)
    draws = xp.random.Generator(xp.random.Philox(key=key, counter=first)).random(
        (samples, -(-size // NUMBERS) * NUMBERS), xp.float32
    )
    return (draws[:, :size] < keep).reshape(shape)


def limit(keep: float) -> int:
    """u / 2²⁴ < float32(keep), as NumPy compares numbers drawn in float32, where u < limit."""
    return math.ceil(float(xp.float32(keep)) * 2**24)


# The loop

ZERO, ONE = numpy.uint64(0), numpy.uint64(1)
MULTIPLIERS = numpy.uint64(0xD2E7470EE14C6C93), numpy.uint64(0xCA5A826395121157)
ADDED = numpy.uint64(0x9E3779B97F4A7C15), numpy.uint64(0xBB67AE8584CAA73B)  # to the key, a round
BLOCK = 64  # counts, whose 2 KiB of numbers stay in the nearest cache


@Instruction
def high(builder, a: Word, b: Word) -> Word:
    """The upper 64 bits of the 128 bits of a · b."""
    wide = type(a.type)(128)
    product = builder.mul(builder.zext(a, wide), builder.zext(b, wide))
    return builder.trunc(builder.lshr(product, wide(64)), a.type)


@helper()
def philox_words(c0, c1, key0, key1):
    """Philox4x64-10 of the count c0 + 2⁶⁴·c1: ten rounds of multiplying and mixing."""
    c2 = c3 = ZERO
    for _ in range(10):
        high0, low0 = high(c0, MULTIPLIERS[0]), c0 * MULTIPLIERS[0]
        high2, low2 = high(c2, MULTIPLIERS[1]), c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, low2, high0 ^ c3 ^ key1, low0
        key0, key1 = key0 + ADDED[0], key1 + ADDED[1]
    return c0, c1, c2, c3


@loop
def dropout_samples(
    x: F[::1], y: Out[::1], kept: OutBytes[::1], size: int,
    key0: Word, key1: Word, low: Word, high_: Word, below: int, scale: float,
):  # fmt: skip
    # x: samples of `size` elements. kept: a bit an element, the lowest first, all 0 before
    words = numpy.empty((BLOCK, 4), numpy.uint64)
    numbers = words.reshape(-1).view(numpy.uint32)  # on a big-endian machine: swapped
    for sample in range(0, len(x), size):
        for start in range(sample, sample + size, BLOCK * NUMBERS):
            m = min(BLOCK * NUMBERS, sample + size - start)
            counts = (m + NUMBERS - 1) // NUMBERS
            for c in range(counts):
                low += ONE  # NumPy adds 1 before it draws
                high_ += ONE if low == ZERO else ZERO
                words[c, 0], words[c, 1], words[c, 2], words[c, 3] = philox_words(
                    low, high_, key0, key1
                )
            xs, ys = x[start : start + m], y[start : start + m]
            for j in range(m):
                ys[j] = xs[j] * (1.0 if numbers[j] < below else 0.0) * scale
            for c in range(counts):
                bits = 0
                for j in range(NUMBERS):
                    bits |= int(numbers[NUMBERS * c + j] < below) << j
                place = start + NUMBERS * c
                bits &= (1 << min(NUMBERS, sample + size - place)) - 1
                kept[place >> 3] |= bits << (place & 7)
                if bits >> (8 - (place & 7)):  # a sample may start in the middle of a byte
                    kept[(place >> 3) + 1] |= bits >> (8 - (place & 7))


@loop
def dropout_by_mask(g: F[::1], kept: Bytes[::1], scale: float, dx: Out[::1]):
    whole = len(g) // 8
    for c in range(whole):
        for j in range(8):
            dx[8 * c + j] = g[8 * c + j] * (1.0 if kept[c] >> j & 1 else 0.0) * scale
    for i in range(8 * whole, len(g)):
        dx[i] = g[i] * (1.0 if kept[whole] >> (i & 7) & 1 else 0.0) * scale


@forward.version("numba")
def _forward_loop(x, key, first, samples, keep, scale):
    x = xp.asarray(x, order="C")
    y, kept = xp.empty_like(x), xp.zeros(-(-x.size // 8), xp.uint8)
    if x.size:
        dropout_samples(
            x.reshape(-1), y.reshape(-1), kept, x.size // samples, *_words(key), *_words(first),
            limit(keep) << 8, scale,
        )  # fmt: skip
    return y, kept


@backward.version("numba")
def _backward_loop(g, kept, key, first, samples, keep, scale):
    if kept is None:
        return _forward_loop(g, key, first, samples, keep, scale)[0]
    g = xp.asarray(g, order="C")
    dx = xp.empty_like(g)
    dropout_by_mask(g.reshape(-1), kept, scale, dx.reshape(-1))
    return dx


# The tile program: a count a thread


@triton_kernel
def philox(c0, c1, key0, key1):
    """Philox4x64-10 of the counts c0 + 2⁶⁴·c1, uint64 as all else: its four words, in order."""
    c2 = tl.zeros_like(c0)
    c3 = tl.zeros_like(c0)
    for _ in tl.static_range(10):
        high0 = tl.umulhi(c0, 0xD2E7470EE14C6C93)
        high2 = tl.umulhi(c2, 0xCA5A826395121157)
        low0 = c0 * 0xD2E7470EE14C6C93
        low2 = c2 * 0xCA5A826395121157
        c0, c1, c2, c3 = high2 ^ c1 ^ key0, low2, high0 ^ c3 ^ key1, low0
        key0 += 0x9E3779B97F4A7C15
        key1 += 0xBB67AE8584CAA73B
    return c0, c1, c2, c3


@triton_kernel
def kept_of_counts(at, key0, key1, low, high, below, COUNTS: tl.constexpr):
    """Which of the eight elements of counts first + at (COUNTS) are kept: (COUNTS, 8) bools.

    `first` is low + 2⁶⁴·high. NumPy adds 1 to the count before it draws, and so it is done here.
    """
    c0 = low + at.to(tl.uint64) + 1
    c1 = tl.where(c0 <= low, high + 1, high)
    w0, w1, w2, w3 = philox(c0, c1, key0, key1)
    words = tl.join(tl.join(w0, w2), tl.join(w1, w3))  # (COUNTS, 2, 2): [:, i, j] is word 2i + j
    halves = tl.join(words.to(tl.uint32), (words >> 32).to(tl.uint32))
    return tl.reshape((halves >> 8).to(tl.int32) < below, [COUNTS, 8])


@triton_kernel
def _dropout_kernel(
    x_ptr, y_ptr, counts, size, each, below,
    key0: tl.uint64, key1: tl.uint64, low: tl.uint64, high: tl.uint64, scale: tl.float64,
    WHOLE: tl.constexpr, DOUBLE: tl.constexpr, COUNTS: tl.constexpr,
):  # fmt: skip
    """`each` counts make a sample of `size` elements; WHOLE: one sample makes all n."""
    at = tl.program_id(0).to(tl.int64) * COUNTS + tl.arange(0, COUNTS)
    number = tl.arange(0, 8)[None, :]
    if WHOLE:
        where = at[:, None] * 8 + number
        inside = where < size
    else:
        column = (at % each)[:, None] * 8 + number
        where = (at // each)[:, None] * size + column
        inside = (at < counts)[:, None] & (column < size)
    kind = tl.float64 if DOUBLE else tl.float32
    x = tl.load(x_ptr + where, mask=inside).to(kind)
    kept = kept_of_counts(
        at, key0.to(tl.uint64), key1.to(tl.uint64), low.to(tl.uint64), high.to(tl.uint64),
        below, COUNTS,
    )  # fmt: skip
    y = x * kept.to(kind) * tl.full([1, 1], scale, kind)
    tl.store(y_ptr + where, y.to(y_ptr.dtype.element_ty), mask=inside)


@forward.version("triton")
def _forward_triton(x, key, first, samples, keep, scale):
    refuse("dropout", "it would drop the same numbers at every replay: set p to 0")
    if x.dtype.kind != "f" and not is_half(x):
        return forward.plain(x)(x, key, first, samples, keep, scale)
    x = contiguous(x)
    y = xp.empty_like(x)
    size = x.size // max(samples, 1)
    whole = samples <= 1 or size % NUMBERS == 0
    size = x.size if whole else size
    each = -(-size // NUMBERS)
    counts = each if whole else each * samples
    _dropout_kernel[(-(-counts // COUNTS),)](
        x, y, counts, size, each, limit(keep), *_words(key), *_words(first),
        float(scale if x.dtype.name == "bfloat16" else x.dtype.type(scale)),
        WHOLE=whole, DOUBLE=x.dtype == xp.float64, COUNTS=COUNTS,
    )  # fmt: skip
    return y, None


@backward.version("triton")
def _backward_triton(g, kept, *drawn):
    return _forward_triton(g, *drawn)[0]


def _words(number: int) -> tuple[int, int]:
    return number & (2**64 - 1), number >> 64 & (2**64 - 1)
