"""Convolution as matrix products over columns of patches (Chellapilla et al. 2006), tile by tile.

All patches of an input together (im2col) would take kh·kw times its memory. Here a few images, or
a few rows of one, are unrolled into one buffer that stays in cache between the copy and the
product. Every function takes any stride, padding, dilation and number of groups.
"""

from collections.abc import Iterator
from itertools import pairwise

from numpy.lib.stride_tricks import sliding_window_view

from . import arrays as xp
from . import winograd
from .dispatch import dispatched
from .product import lines, on_lines, product, turned
from .windows import Windows

COLUMNS = 1 << 19  # elements of a tile of columns: 2 MiB in float32
DEPTH = 128  # rows of columns from which it pays to turn g round for the weight's product


def naive(x, weight, bias, win: Windows, groups=1, count=None):
    """The formula: a place in the kernel has weights (o, c), times what all windows see there."""
    count = count or win.grid(x.shape[2:])
    y = xp.zeros_like(x, shape=(len(x), groups, len(weight) // groups, count[0] * count[1]))
    x, weight = _whole(x, win), weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    for place, at in win.taps(count):
        y += xp.matmul(weight[(..., *place)], _in_groups(x[at], groups))
    y = y.reshape(len(x), y.shape[1] * y.shape[2], *count)
    return y if bias is None else y + bias[:, None, None]


def _naive_weight(g, x, shape, win, groups=1):
    dw, x, count = xp.zeros_like(x, shape=shape), _whole(x, win), g.shape[2:]
    parts, g = dw.reshape(groups, shape[0] // groups, *shape[1:]), _in_groups(g, groups)
    for place, at in win.taps(count):
        parts[(..., *place)] = xp.matmul(g, _in_groups(x[at], groups).swapaxes(2, 3)).sum(0)
    return dw


def _naive_input(g, weight, size, win, groups=1):
    (n, o), count, c = g.shape[:2], g.shape[2:], weight.shape[1] * groups
    dx, g = _whole(xp.zeros_like(g, shape=(n, c, *size)), win), _in_groups(g, groups)
    weight = weight.reshape(groups, o // groups, *weight.shape[1:]).swapaxes(1, 2)
    for place, at in win.taps(count):
        dx[at] += xp.matmul(weight[(..., *place)], g).reshape(n, c, *count)
    return win.inside(dx, size)


def _whole(x, win):
    return xp.pad(x, ((0, 0), (0, 0), *win.padding))


def _in_groups(x, groups):
    """(n, c, h, w) as (n, groups, c/groups, h·w)."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h * w)


def _tiles(n: int, depth: int, size: tuple) -> Iterator[tuple[slice, list[slice]]]:
    """(images, [output rows, …]): whole images if several fit, else rows of one, evenly cut."""
    h, image = size[0], max(1, depth * size[0] * size[1])
    images, cuts = max(1, COLUMNS // image), min(h, -(-image // COLUMNS))
    edges = [h * i // cuts for i in range(cuts + 1)]
    rows = [slice(*pair) for pair in pairwise(edges)]
    for first in range(0, n, images):
        yield slice(first, min(first + images, n)), rows


def _columns(x: xp.ndarray, win: Windows, count: tuple) -> Iterator[tuple]:
    """(images, rows, columns (c, kh, kw, images, rows, wo)) a tile, in one buffer used again."""
    (kh, kw), (sh, sw), (dh, dw) = win.kernel, win.stride, win.dilation
    n, c, size = *x.shape[:2], x.shape[2:]
    tiles = list(_tiles(n, c * kh * kw, count))
    padded = win.padded(tiles[0][0].stop if n else 0, c, size, x.dtype)
    patches = sliding_window_view(padded, win.reach(), (2, 3))[..., ::dh, ::dw]
    patches = patches[:, :, ::sh, ::sw].transpose(1, 4, 5, 0, 2, 3)[..., : count[0], : count[1]]
    inside, buffer = win.inside(padded, size), xp.empty((0, 0), x.dtype)
    for images, cuts in tiles:
        length = images.stop - images.start
        inside[:length] = x[images]
        for rows in cuts:
            part = patches[:, :, :, :length, rows]
            pixels = part[0, 0, 0].size
            if buffer.shape[1] < pixels:
                buffer = on_lines(x, c * kh * kw, lines(pixels))
            columns = buffer[:, :pixels].reshape(part.shape)
            columns[...] = part
            yield images, rows, columns


@dispatched
def forward(
    x: xp.ndarray, weight: xp.ndarray, bias: xp.ndarray | None, win: Windows, groups: int = 1,
    count: tuple | None = None,
) -> xp.ndarray:  # fmt: skip
    """x (n, c, h, w), weight (o, c/groups, kh, kw), bias (o,) -> (n, o, ho, wo).

    (ho, wo) is `count`, or as many windows as there are. Temporary memory: columns for COLUMNS
    elements (or one output row), a product for their o / (c · kh · kw / groups) as many results,
    and the images that they are of, padded; by Winograd's way, four times winograd.COLUMNS, the
    sums that they are of, and as many results.
    """
    o, width, count = len(weight), weight[0].size, count or win.grid(x.shape[2:])
    if winograd.suits(win, weight.shape[1], count, x.dtype):
        return winograd.forward(x, weight, bias, win, groups, count)
    matrix, shift = xp.array(weight, order="C"), 0 if bias is None else bias
    matrix = matrix.reshape(groups, o // groups, width)
    y = xp.empty((len(x), o, *count), x.dtype)
    for images, rows, columns in _columns(x, win, y.shape[2:]):
        pixels = columns[0, 0, 0]
        part = product(matrix, columns.reshape(groups, width, pixels.size), lined=True)
        part = part.reshape(o, *pixels.shape).swapaxes(0, 1)
        xp.add(part, xp.reshape(shift, (-1, 1, 1)), out=y[images, :, rows])
    return y


def _rows(g: xp.ndarray, images: slice, rows: slice, groups: int) -> xp.ndarray:
    """One tile of g (n, o, ho, wo) as matrices (groups, o/groups, pixels)."""
    gt = g[images, :, rows].swapaxes(0, 1)
    return gt.reshape(groups, len(gt) // groups, gt[0].size)


@dispatched
def backward_weight(
    g: xp.ndarray, x: xp.ndarray, shape: tuple, win: Windows, groups: int = 1
) -> xp.ndarray:
    """g (n, o, ho, wo), x (n, c, h, w) -> the weight's cotangent, of `shape`.

    Temporary memory: as forward's, with g's part twice in place of results.
    """
    if winograd.suits(win, shape[1], g.shape[2:], x.dtype):
        return winograd.backward_weight(g, x, shape, win, groups)
    o, width = shape[0], shape[1] * shape[2] * shape[3]
    dw = xp.zeros((groups, width, o // groups), x.dtype)
    for images, rows, columns in _columns(x, win, g.shape[2:]):
        if width < DEPTH:
            each = columns.reshape(groups, width, columns.shape[3], -1).transpose(2, 0, 1, 3)
            gt = g[images, :, rows].reshape(len(each), groups, o // groups, -1)
            dw += xp.matmul(each, gt.swapaxes(2, 3)).sum(0)
        else:
            gt = turned(_rows(g, images, rows, groups))
            dw += product(columns.reshape(groups, width, gt.shape[1]), gt, lined=True)
    return dw.swapaxes(1, 2).reshape(shape)


@dispatched
def backward_input(
    g: xp.ndarray, weight: xp.ndarray, size: tuple, win: Windows, groups: int = 1
) -> xp.ndarray:
    """g (n, o, ho, wo) -> the input's cotangent (n, c, *size).

    With stride 1 it is itself a convolution, of g with the kernel turned round; in general
    every patch's cotangent is added back where the patch came from (col2im). That is also faster
    for an input of few channels, whose patches are smaller than g's. Temporary memory: as forward's
    of g; by patches, twice COLUMNS, a part of g and the images, padded.
    """
    before = [reach - 1 - pad[0] for reach, pad in zip(win.reach(), win.padding)]
    after = [
        n - m - b + reach - 1 for n, m, b, reach in zip(size, g.shape[2:], before, win.reach())
    ]
    narrow = 4 * weight.shape[1] * groups <= len(weight)
    sparse = size[0] * size[1] > 2 * g.shape[2] * g.shape[3]  # it would mostly multiply zeros
    if win.stride != (1, 1) or min(before + after) < 0 or narrow or sparse:
        return _scatter(g, weight, size, win, groups)
    (top, left), (bottom, right) = before, after
    win = win._replace(padding=((top, bottom), (left, right)))
    return forward(g, _turned_round(weight, groups), None, win, groups)


def _turned_round(weight: xp.ndarray, groups: int) -> xp.ndarray:
    """(o, c/groups, kh, kw) -> (c, o/groups, kh, kw), rows and columns reversed."""
    o, c, *kernel = weight.shape
    split = weight.reshape(groups, o // groups, c, *kernel)[..., ::-1, ::-1]
    return split.swapaxes(1, 2).reshape(groups * c, o // groups, *kernel)


def _scatter(
    g: xp.ndarray, weight: xp.ndarray, size: tuple, win: Windows, groups: int
) -> xp.ndarray:
    (kh, kw), (sh, sw), (dh, dw), wo = win.kernel, win.stride, win.dilation, g.shape[3]
    n, c = len(g), weight.shape[1] * groups
    matrix = weight.reshape(groups, len(weight) // groups, weight[0].size).swapaxes(1, 2)
    matrix = xp.array(matrix, order="C")
    dx = xp.empty((n, c, *size), g.dtype)
    for images, cuts in _tiles(n, c * kh * kw, g.shape[2:]):
        padded = win.padded(images.stop - images.start, c, size, g.dtype)
        for rows in cuts:
            columns = product(matrix, _rows(g, images, rows, groups))
            columns = columns.reshape(c, kh, kw, len(padded), rows.stop - rows.start, wo)
            for i, j in xp.ndindex(kh, kw):
                down = slice(i * dh + sh * rows.start, i * dh + sh * (rows.stop - 1) + 1, sh)
                across = slice(j * dw, j * dw + sw * (wo - 1) + 1, sw)
                padded[:, :, down, across] += columns[:, i, j].swapaxes(0, 1)
        dx[images] = win.inside(padded, size)
    return dx


forward.version("naive")(naive)
backward_weight.version("naive")(_naive_weight)
backward_input.version("naive")(_naive_input)


def backward_bias(g: xp.ndarray) -> xp.ndarray:
    """(n, o, ho, wo) -> (o,)."""
    return g.sum((0, 2, 3))
