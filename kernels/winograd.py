"""Convolution by three kernel rows with two thirds of the products (Winograd 1980, Lavin 2016).

Two rows of the output come from four of the input, d, and the kernel's three, w:

    y0 = w0 d0 + w1 d1 + w2 d2        m0 = w0 (d0 - d2)        m1 = (w0 + w1 + w2)/2 (d1 + d2)
    y1 = w0 d1 + w1 d2 + w2 d3        m3 = w2 (d1 - d3)        m2 = (w0 - w1 + w2)/2 (d2 - d1)

where y0 = m0 + m1 + m2 and y1 = m1 - m2 - m3: four products, not six. Each is one of matrices: a
weight (o, c·kw) and, unrolled along rows alone, a sum of input rows (c·kw, pixels). Backward to
the weight is the adjoint, from right to left. An infinity becomes a NaN: ∞ - ∞.
"""

from collections.abc import Iterator

from numpy.lib.stride_tricks import sliding_window_view

from . import arrays as xp
from .product import lines, on_lines, product, turned
from .windows import Windows

COLUMNS = 1 << 18  # elements of a sum's columns: a tile that mostly stays in cache,
PIXELS = 256, 1024  # and pixels, at least and at most
DEPTH, LEAST = 48, 64  # channels times kw, and pixels of a plane, from which the sums pay
Tile = tuple[slice, slice, xp.ndarray]


def suits(win: Windows, channels: int, count: tuple, dtype: xp.dtype) -> bool:
    """Whether there are three rows, and products of some size."""
    down = (win.kernel[0], win.stride[0], win.dilation[0]) == (3, 1, 1)
    large = channels * win.kernel[1] >= DEPTH and count[0] * count[1] >= LEAST
    return down and large and dtype.char in "fd"


def _tiles(x: xp.ndarray, win: Windows, count: tuple, groups: int) -> Iterator[Tile]:
    """(images, pairs of output rows, matrices (4, groups, c/groups·kw, pixels)) a tile."""
    (h, wo), (n, c), kw = count, x.shape[:2], win.kernel[1]
    pixels = min(max(COLUMNS // (c * kw), PIXELS[0]), PIXELS[1])
    some = max(1, min(n, pixels // (h * wo)))
    most = min(h // 2, max(1, pixels // (2 * wo)))
    sums = xp.zeros((4, c, some, h // 2 + 1, x.shape[3] + sum(win.padding[1])), x.dtype)
    seen = sliding_window_view(sums, win.reach()[1], 4)[..., :: win.dilation[1]]
    seen = seen[..., :: win.stride[1], :].transpose(0, 1, 5, 2, 3, 4)[..., :wo]
    buffer = on_lines(x, 4, c * kw, lines(some * most * wo))
    for images in _sums(x, win, sums):
        for start in range(0, h // 2, most):
            pairs = slice(start, min(start + most, h // 2))
            part = seen[:, :, :, : images.stop - images.start, pairs]  # (4, c, kw, n, pairs, wo)
            columns = buffer[..., : part[0, 0, 0].size]
            columns.reshape(part.shape)[...] = part
            yield images, pairs, columns.reshape(4, groups, c // groups * kw, -1)


def _sums(x: xp.ndarray, win: Windows, out: xp.ndarray) -> Iterator[slice]:
    """Fills out (4, c, images, pairs + 1, w) with the sums of rows, some images at a time.

    Rows follow each other without a gap from plane to plane, so that each sum is one pass; the
    last pair of a plane is of no meaning.
    """
    (top, _), (left, _), (some, _, width) = *win.padding, out.shape[2:]
    padded = xp.zeros((2, *out.shape[1:]), x.dtype)  # even rows, odd rows
    (d0, d2), (d1, d3) = ((rows[:-width], rows[width:]) for rows in padded.reshape(2, -1))
    m0, m1, m2, m3 = out.reshape(4, -1)[:, :-width]
    for first in range(0, len(x), some):
        planes = x[first : first + some].swapaxes(0, 1)
        for odd in (0, 1):
            rows = planes[:, :, (odd - top) % 2 :: 2]
            below = padded[odd, :, : planes.shape[1], ((odd - top) % 2 + top) // 2 :]
            below[:, :, : rows.shape[2], left : left + rows.shape[3]] = rows[:, :, : below.shape[2]]
        xp.subtract(d0, d2, out=m0)
        xp.add(d1, d2, out=m1)
        xp.subtract(d2, d1, out=m2)
        xp.subtract(d1, d3, out=m3)
        yield slice(first, first + planes.shape[1])


def _pairs(y: xp.ndarray, images: slice, pairs: slice) -> xp.ndarray:
    """A view of one tile of y (n, o, h, w), even and odd rows apart: (2, o, images, pairs, w)."""
    n, o, h, w = y.shape
    return y.reshape(n, o, h // 2, 2, w)[images, :, pairs].transpose(3, 1, 0, 2, 4)


def forward(
    x: xp.ndarray, weight: xp.ndarray, bias: xp.ndarray | None, win: Windows, groups: int,
    count: tuple,
) -> xp.ndarray:  # fmt: skip
    """x (n, c, h, w), weight (o, c/groups, 3, kw), bias (o,) -> (n, o, *count)."""
    o, c, _, kw = weight.shape
    w0, w1, w2 = weight.transpose(2, 0, 1, 3)
    half, odd = (w0 + w2) / 2, w1 / 2
    matrix = xp.stack([w0, half + odd, half - odd, w2])
    matrix = matrix.reshape(4, groups, o // groups, c * kw)
    h, wo = count
    y = xp.empty((len(x), o, h + h % 2, wo), x.dtype)
    for images, pairs, columns in _tiles(x, win, y.shape[2:], groups):
        y0, y1 = _pairs(y, images, pairs)
        m0, m1, m2, m3 = product(matrix, columns, lined=True).reshape(4, *y0.shape)
        if bias is not None:
            m0 += bias[:, None, None, None]
            m3 -= bias[:, None, None, None]
        m0 += m1
        xp.add(m0, m2, out=y0)
        m1 -= m2
        xp.subtract(m1, m3, out=y1)
    return y if h % 2 == 0 else y[:, :, :h].copy()


def backward_weight(
    g: xp.ndarray, x: xp.ndarray, shape: tuple, win: Windows, groups: int
) -> xp.ndarray:
    """g (n, o, ho, wo), x (n, c, h, w) -> the weight's cotangent, of `shape`."""
    (o, c, _, kw), buffer = shape, xp.empty((4, shape[0], 0), g.dtype)
    dm = xp.zeros((4, groups, c * kw, o // groups), x.dtype)
    if g.shape[2] % 2:
        g = xp.pad(g, ((0, 0), (0, 0), (0, 1), (0, 0)))
    for images, pairs, columns in _tiles(x, win, g.shape[2:], groups):
        pixels = columns.shape[-1]
        if buffer.shape[2] < pixels:
            buffer = xp.zeros((4, o, lines(pixels)), g.dtype)
        g0, g1 = _pairs(g, images, pairs)
        m0, m1, m2, m3 = buffer
        m0[:, :pixels].reshape(g0.shape)[...] = g0
        # Not xp.negative: NumPy 2.4.6's reads wrong elements where the output is strided and the
        # input's stride is 4 elements of float32, or 8 of float64 (planes one column wide).
        xp.multiply(g1, -1, out=m3[:, :pixels].reshape(g1.shape))
        xp.subtract(m0, m3, out=m1)
        xp.add(m0, m3, out=m2)
        gt = buffer[..., :pixels].reshape(4, groups, o // groups, pixels)
        dm += product(columns, turned(gt), lined=True)
    m0, m1, m2, m3 = dm.transpose(0, 1, 3, 2).reshape(4, o, c, kw)
    half = (m1 + m2) / 2
    return xp.stack([m0 + half, (m1 - m2) / 2, m3 + half], 2)
