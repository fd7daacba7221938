"""Dropout (Srivastava et al. 2014) whose mask follows from a key and a count, not from a layout.

Philox (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") turns a key and a count
into 256 random bits, eight numbers of 32 bits: no state, so any tile may be drawn anywhere, and a
GPU draws to the last bit what NumPy draws. The elements of a sample take the numbers of counts of
its own, in order; the numbers left over in its last count are not used.

The ladder: naive, numbers, mask and both products stream through memory, one array after another;
in NumPy, a tile of mask is drawn and multiplied while it is in cache; in Triton, a count is worked
out in the registers of one thread, and its eight elements are multiplied there. Memory traffic:
forward reads x and writes y, backward reads g and writes dx. Triton stores no mask, for drawing
again hides behind the traffic; NumPy draws two numbers in the time of ten products, so it keeps
the mask, a bit an element: 1/32 of x in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from . import arrays as xp
from .capture import refuse
from .dispatch import dispatched
from .half_precision import is_half
from .launch import contiguous, triton_kernel
from .tiles import ELEMENTS

tl: Any = None  # Triton's language, once a kernel is launched

NUMBERS = 8  # of 32 bits that Philox makes of one count
COUNTS = 128  # a program: a count a thread, whose eight numbers are two loads of 16 bytes


@dispatched
def forward(
    x: xp.ndarray, key: int, first: int, samples: int, keep: float, scale: float
) -> tuple[xp.ndarray, Any]:
    """x times scale where the number drawn is under `keep`, x times 0 elsewhere; and the mask.

    x has equal parts, `samples` of them, the first at count `first`; its numbers are (bits >> 8)
    / 2²⁴, from Philox's words in order, the low half of each first. Temporary memory is 6 bytes
    for each of a tile's ELEMENTS; the mask takes n/8 bytes.
    """
    x, kept = xp.asarray(x, order="C"), []
    y = xp.empty_like(x, dtype=xp.result_type(x, scale))
    for part, mask in _masks(x.size, key, first, samples, keep):
        _scaled(x, part, mask, scale, y)
        kept.append((part, xp.packbits(mask)))
    return y, kept


@dispatched
def backward(
    g: xp.ndarray, kept: Any, key: int, first: int, samples: int, keep: float, scale: float
) -> xp.ndarray:
    """g times scale where forward kept, times 0 elsewhere; the mask is drawn again if it is None.

    Temporary memory is 2 bytes for each of a tile's ELEMENTS.
    """
    if kept is None:
        return forward.versions["numba"](g, key, first, samples, keep, scale)[0]
    g = xp.asarray(g, order="C")
    dx = xp.empty_like(g)
    for part, bits in kept:
        mask = xp.unpackbits(bits, count=part.stop - part.start).view(bool)
        _scaled(g, part, mask, scale, dx)
    return dx


def mask(shape: tuple[int, ...], key: int, first: int, samples: int, keep: float) -> xp.ndarray:
    """The mask as one array, True where dropout keeps, from NumPy's own numbers.

    `forward` draws the same bits tile by tile. Attention and recurrent layers, which drop inside
    their own operation, take this one.
    """
    size = math.prod(shape) // max(samples, 1)
    draws = xp.random.Generator(xp.random.Philox(key=key, counter=first)).random(
        (samples, -(-size // NUMBERS) * NUMBERS), xp.float32
    )
    return (draws[:, :size] < keep).reshape(shape)


@forward.version("naive")
def naive(x, key, first, samples, keep, scale):
    """The whole mask, then two products."""
    return x * mask(x.shape, key, first, samples, keep) * scale, None


@backward.version("naive")
def _backward_naive(g, kept, *drawn):
    """The map is linear, and its own transpose."""
    return naive(g, *drawn)[0]


def limit(keep: float) -> int:
    """u / 2²⁴ < float32(keep), as NumPy compares numbers drawn in float32, where u < limit."""
    return math.ceil(float(xp.float32(keep)) * 2**24)


def _masks(
    n: int, key: int, first: int, samples: int, keep: float
) -> Iterator[tuple[slice, xp.ndarray]]:
    """Pieces of n elements, in order, each with its mask, flat."""
    philox, start = xp.random.Philox(key=key, counter=first), 0
    for rows, width in _pieces(n, samples):
        stop = start + rows * width
        yield slice(start, stop), _mask(philox, rows, width, limit(keep) << 8)
        start = stop


def _mask(philox: xp.random.Philox, rows: int, width: int, below: int) -> xp.ndarray:
    words = philox.random_raw(rows * -(-width // NUMBERS) * 4)
    bits = words.view(xp.uint32).reshape(rows, -1)[:, :width]  # on a big-endian machine: swapped
    return xp.less(bits, below).reshape(-1)


def _pieces(n: int, samples: int) -> Iterator[tuple[int, int]]:
    """(rows, width) of pieces that take whole counts: several samples, or a part of one."""
    if n == 0:
        return
    if n // samples % NUMBERS == 0:  # no number is left over: one long sample
        samples = 1
    size, most = n // samples, -(-ELEMENTS // NUMBERS) * NUMBERS
    step = max(1, most // (-(-size // NUMBERS) * NUMBERS))
    for row in range(0, samples, step):
        for column in range(0, size, most):
            yield min(step, samples - row), min(most, size - column)


def _scaled(x: xp.ndarray, part: slice, mask: xp.ndarray, scale: float, out: xp.ndarray) -> None:
    piece = out.reshape(-1)[part]
    xp.multiply(x.reshape(-1)[part], mask, out=piece)
    piece *= scale


# The same on a GPU: a count a thread


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
