"""Convolution as products of matrices (Chellapilla et al. 2006), of any stride, padding, dilation
and number of groups.

The ladder, x (n, c, h, w) of b bytes a number, a kernel kh x kw, o output channels:

- formula: for each place in the kernel a product of its weights (o, c) with what all windows see
  there. It moves kh·kw times the bytes of x and of 2 y, because every product is added to y.
- loop: the patches of a few images, or of a few rows of one, are unrolled into columns
  (c·kh·kw, pixels), and one product (BLAS) has their results. Columns and results stay in the
  cache, so x is read and y is written once: nb (c·h·w + o·ho·wo) bytes. The columns of all images
  together (im2col) would be kh·kw times x.
- loop, 3 x 3 kernels of many channels: sums of patches are multiplied in place of patches, with 4
  multiplications in place of 9 (winograd.py).
- tile program: the patches of as many images as COLUMNS_THERE allows are unrolled into columns, and
  one product (the GPU's BLAS) has their results. x is read and y is written once, but columns are
  too large for a cache: they are written and read, 2nb·c·kh·kw·ho·wo bytes beside. The way back is
  a block of dx: each number adds up the columns that its patches had it in. No atomic additions.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from . import arrays as xp
from . import winograd
from .dispatch import formula
from .elementary import row_sum
from .launch import blocks, contiguous, real, triton_kernel
from .loops import F, Out, loop
from .product import product
from .windows import Windows, split

tl: Any = None  # Triton's language, once a kernel is launched

COLUMNS = 1 << 19  # elements of a tile of columns: 2 MiB in float32
COLUMNS_THERE = 1 << 26  # the same on a GPU: 256 MiB, for large products
BLOCK = 1024  # numbers a program: 8 a thread


# The formula


@formula
def forward(
    x: xp.ndarray, weight: xp.ndarray, bias: xp.ndarray | None, win: Windows, groups: int = 1,
    count: tuple | None = None,
) -> xp.ndarray:  # fmt: skip
    """x (n, c, h, w), weight (o, c/groups, kh, kw), bias (o,) -> (n, o, ho, wo).

    (ho, wo) is `count`, or as many windows as there are. Temporary memory of the loop: columns for
    COLUMNS elements (or one output row), and a product for their o / (c · kh · kw / groups) as many
    results; by Winograd's way 16 sums for winograd.TILES tiles of each input and output channel.
    """
    count = count or win.grid(x.shape[2:])
    y = xp.zeros_like(x, shape=(len(x), groups, len(weight) // groups, count[0] * count[1]))
    x, weight = _whole(x, win), weight.reshape(groups, len(weight) // groups, *weight.shape[1:])
    for place, at in win.taps(count):
        y += xp.matmul(weight[(..., *place)], _in_groups(x[at], groups))
    y = y.reshape(len(x), y.shape[1] * y.shape[2], *count)
    return y if bias is None else y + bias[:, None, None]


@formula
def backward_weight(
    g: xp.ndarray, x: xp.ndarray, shape: tuple, win: Windows, groups: int = 1
) -> xp.ndarray:
    """g (n, o, ho, wo), x (n, c, h, w) -> the weight's cotangent, of `shape`.

    Temporary memory: as forward's.
    """
    dw, x, count = xp.zeros_like(x, shape=shape), _whole(x, win), g.shape[2:]
    parts, g = dw.reshape(groups, shape[0] // groups, *shape[1:]), _in_groups(g, groups)
    for place, at in win.taps(count):
        parts[(..., *place)] = xp.matmul(g, _in_groups(x[at], groups).swapaxes(2, 3)).sum(0)
    return dw


@formula
def backward_input(
    g: xp.ndarray, weight: xp.ndarray, size: tuple, win: Windows, groups: int = 1
) -> xp.ndarray:
    """g (n, o, ho, wo) -> the input's cotangent (n, c, *size).

    Temporary memory: as forward's of g.
    """
    (n, o), count, c = g.shape[:2], g.shape[2:], weight.shape[1] * groups
    dx, g = _whole(xp.zeros_like(g, shape=(n, c, *size)), win), _in_groups(g, groups)
    weight = weight.reshape(groups, o // groups, *weight.shape[1:]).swapaxes(1, 2)
    for place, at in win.taps(count):
        dx[at] += xp.matmul(weight[(..., *place)], g).reshape(n, c, *count)
    return win.inside(dx, size)


@formula
def backward_bias(g: xp.ndarray) -> xp.ndarray:
    """(n, o, ho, wo) -> (o,)."""
    return g.sum((0, 2, 3))


def _whole(x, win):
    return xp.pad(x, ((0, 0), (0, 0), *win.padding))


def _in_groups(x, groups):
    """(n, c, h, w) as (n, groups, c/groups, h·w)."""
    n, c, h, w = x.shape
    return x.reshape(n, groups, c // groups, h * w)


# The loops


@loop
def unroll(
    x: F[:, :, :, ::1], image: int, row: int, kh: int, kw: int, dh: int, dw: int, top: int,
    left: int, line: Out[::1], parts: Out[:, :, :, ::1], columns: Out[:, :, :, ::1],
):  # fmt: skip
    # parts (sh, sw, …) is for `split`; columns (c · kh · kw, images, rows, wo)
    sh, sw = parts.shape[:2]
    _, images, rows, wo = columns.shape
    for ch in range(x.shape[1]):
        for im in range(images):
            split(x[image + im, ch], row * sh - top, left, 0.0, line, parts)
            for i in range(kh):
                for j in range(kw):
                    seen, down = parts[i * dh % sh, j * dw % sw], i * dh // sh
                    for r in range(rows):
                        source = seen[down + r, j * dw // sw :]
                        into = columns[(ch * kh + i) * kw + j, im, r]
                        for p in range(wo):
                            into[p] = source[p]


@loop
def roll_back(
    columns: F[:, :, :, ::1], image: int, row: int, kh: int, kw: int, sh: int, sw: int, dh: int,
    dw: int, top: int, left: int, dx: Out[:, :, :, ::1],
):  # fmt: skip
    # columns (c · kh · kw, images, rows, wo): each number is added to where its patch had it
    c, h, w = dx.shape[1:]
    _, images, rows, wo = columns.shape
    for place in range(c * kh * kw):
        ch, i, j = place // (kh * kw), place // kw % kh, place % kw
        first = min(wo, max(0, -((j * dw - left) // sw)))  # of the windows that see the plane here
        last = max(first, min(wo, (w - 1 - j * dw + left) // sw + 1))
        for im in range(images):
            for r in range(rows):
                y = (row + r) * sh + i * dh - top
                if 0 <= y < h and first < last:
                    into = dx[image + im, ch, y, j * dw - left + first * sw :]
                    seen = columns[place, im, r, first:last]
                    if sw == 1:  # apart, for the sake of vector instructions
                        for q in range(len(seen)):
                            into[q] += seen[q]
                    else:
                        for q in range(len(seen)):
                            into[q * sw] += seen[q]


@loop
def to_planes(part: F[:, :, ::1], bias: F[::1], image: int, start: int, y: Out[:, :, ::1]):
    # part (o, images, pixels) -> y (n, o, ho · wo), from `image` and pixel `start` on
    o, images, pixels = part.shape
    for k in range(o):
        shift = bias[k]
        for im in range(images):
            source, into = part[k, im], y[image + im, k, start:]
            for p in range(pixels):
                into[p] = source[p] + shift


@loop
def from_planes(g: F[:, :, ::1], image: int, start: int, part: Out[:, :, ::1]):
    o, images, pixels = part.shape
    for k in range(o):
        for im in range(images):
            source, into = g[image + im, k, start:], part[k, im]
            for p in range(pixels):
                into[p] = source[p]


@loop
def channel_sums(g: F[:, :, ::1], sums: Out[:, ::1]):
    # g (n, o, pixels) -> sums (n, o)
    n, o = g.shape[:2]
    for i in range(n):
        for k in range(o):
            sums[i, k] = row_sum(g[i, k])


# Around the loops

Tile = tuple[int, int, int, int]  # first image, images, first output row, rows


def _tiles(n: int, depth: int, size: tuple) -> Iterator[Tile]:
    """Whole images if several fit, else rows of one, evenly cut."""
    h, image = size[0], max(1, depth * size[0] * size[1])
    images, cuts = max(1, COLUMNS // image), min(h, -(-image // COLUMNS))
    edges = [h * i // cuts for i in range(cuts + 1)]
    for first in range(0, n, images):
        for start, stop in pairwise(edges):
            yield first, min(images, n - first), start, stop - start


def _columns(x: xp.ndarray, win: Windows, count: tuple) -> Iterator[tuple]:
    """(tile, columns (c · kh · kw, images, rows, wo)), all in one buffer."""
    (kh, kw), (sh, sw), ((top, _), (left, _)), (dh, dw) = win
    (n, c), wo, columns, parts = x.shape[:2], count[1], xp.Buffer(x), xp.Buffer(x)
    pitch, more = wo + (kw - 1) * dw // sw, (kh - 1) * dh // sh  # of the parts that `split` fills
    line = xp.empty_like(x, order="C", shape=sw * pitch)
    for tile in _tiles(n, c * kh * kw, count):
        _, images, row, rows = tile
        seen, room = columns(c * kh * kw, images, rows, wo), parts(sh, sw, rows + more, pitch)
        unroll(x, tile[0], row, kh, kw, dh, dw, top, left, line, room, seen)
        yield tile, seen


@forward.version("numba")
def _forward_loop(x, weight, bias, win, groups=1, count=None):
    (o, c), count = weight.shape[:2], count or win.grid(x.shape[2:])
    x, bias = xp.ascontiguousarray(x), xp.zeros(o, x.dtype) if bias is None else bias
    if winograd.suits(win, (c, o // groups), count):
        return winograd.forward(x, weight, bias, win, groups, count)
    matrix = xp.ascontiguousarray(weight).reshape(groups, o // groups, weight[0].size)
    y, results, wo = xp.empty_like(x, shape=(len(x), o, *count)), xp.Buffer(x), count[1]
    planes = y.reshape(len(x), o, count[0] * wo)
    for (image, images, row, rows), seen in _columns(x, win, count):
        part = results(groups, o // groups, images * rows * wo)
        product(matrix, seen.reshape(groups, -1, part.shape[2]), part)
        to_planes(part.reshape(o, images, rows * wo), bias, image, row * wo, planes)
    return y


@backward_weight.version("numba")
def _backward_weight_loop(g, x, shape, win, groups=1):
    g, x, count, o = xp.ascontiguousarray(g), xp.ascontiguousarray(x), g.shape[2:], shape[0]
    if winograd.suits(win, (shape[1], o // groups), count):
        return winograd.backward_weight(g, x, shape, win, groups)
    planes, results, wo = g.reshape(len(g), o, count[0] * count[1]), xp.Buffer(x), count[1]
    dw = xp.zeros((groups, o // groups, math.prod(shape[1:])), x.dtype)
    for (image, images, row, rows), seen in _columns(x, win, count):
        part = results(o, images, rows * wo)
        from_planes(planes, image, row * wo, part)
        part = part.reshape(groups, o // groups, -1)
        dw += xp.matmul(part, seen.reshape(groups, dw.shape[2], -1).swapaxes(1, 2))
    return dw.reshape(shape)


@backward_input.version("numba")
def _backward_input_loop(g, weight, size, win, groups=1):
    """With stride 1 it is itself a convolution, of g with the kernel turned round.

    In general, every patch's cotangent is added back where the patch came from (col2im). That is
    also faster for an input of few channels, whose patches are smaller than g's.
    """
    before = [reach - 1 - pad[0] for reach, pad in zip(win.reach(), win.padding)]
    after = [
        n - m - b + reach - 1 for n, m, b, reach in zip(size, g.shape[2:], before, win.reach())
    ]
    narrow = 4 * weight.shape[1] * groups <= len(weight)
    sparse = size[0] * size[1] > 2 * g.shape[2] * g.shape[3]  # it would mostly multiply zeros
    if win.stride != (1, 1) or min(before + after) < 0 or narrow or sparse:
        return _by_patches(g, weight, size, win, groups)
    (top, left), (bottom, right) = before, after
    win = win._replace(padding=((top, bottom), (left, right)))
    return _forward_loop(g, _turned_round(weight, groups), None, win, groups)


def _turned_round(weight: xp.ndarray, groups: int) -> xp.ndarray:
    """(o, c/groups, kh, kw) -> (c, o/groups, kh, kw), rows and columns reversed."""
    o, c, *kernel = weight.shape
    split = weight.reshape(groups, o // groups, c, *kernel)[..., ::-1, ::-1]
    return split.swapaxes(1, 2).reshape(groups * c, o // groups, *kernel)


def _by_patches(g, weight, size, win, groups):
    g, count, wo = xp.ascontiguousarray(g), g.shape[2:], g.shape[3]
    o, c, width, ((top, _), (left, _)) = len(weight), weight.shape[1], weight[0].size, win.padding
    matrix = weight.reshape(groups, o // groups, width).swapaxes(1, 2)
    planes, columns, results = g.reshape(len(g), o, count[0] * wo), xp.Buffer(g), xp.Buffer(g)
    dx, by = xp.zeros((len(g), c * groups, *size), g.dtype), (*win.kernel, *win.stride)
    for image, images, row, rows in _tiles(len(g), groups * width, count):
        part = results(o, images, rows * wo)
        from_planes(planes, image, row * wo, part)
        seen = columns(groups, width, images * rows * wo)
        xp.matmul(matrix, part.reshape(groups, o // groups, -1), out=seen)
        seen = seen.reshape(groups * width, images, rows, wo)
        roll_back(seen, image, row, *by, *win.dilation, top, left, dx)
    return dx


@backward_bias.version("numba")
def _backward_bias_loop(g):
    sums = xp.empty(g.shape[:2], g.dtype)
    channel_sums(g.reshape(*g.shape[:2], g.shape[2] * g.shape[3]), sums)
    return sums.sum(0)


# The tile program: a block of pixels, some lines of planes


@triton_kernel
def _unroll_kernel(
    x_ptr, columns_ptr, lines, channels, h, w, ho, wo,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """A program unrolls one channel of x (images, channels, h, w) into columns (channels · KH · KW,
    images, ho, wo), which have images · ho lines."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    channel, image = tl.program_id(2).to(tl.int64), (line // ho).to(tl.int64)
    inside, down, across = (line < lines) & (column < wo), line % ho * SH - TOP, column * SW - LEFT
    for number in tl.range(0, KH * KW, loop_unroll_factor=4):
        i, j = down + number // KW * DH, across + number % KW * DW
        there = inside & (i >= 0) & (i < h) & (j >= 0) & (j < w)
        at = ((image * channels + channel) * h + i) * w + j
        to = ((channel * KH * KW + number) * lines + line) * wo + column
        tl.store(columns_ptr + to, tl.load(x_ptr + at, there, other=0), inside)


@triton_kernel
def _roll_back_kernel(
    columns_ptr, dx_ptr, lines, images, channels, h, w, ho, wo, DOUBLE: tl.constexpr,
    KH: tl.constexpr, KW: tl.constexpr, SH: tl.constexpr, SW: tl.constexpr, DH: tl.constexpr,
    DW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """columns (channels · KH · KW, images, ho, wo), dx (images, channels, h, w), whose lines are
    images · channels · h."""
    line = tl.program_id(0) * ROWS + tl.arange(0, ROWS)[:, None]
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)[None, :]
    inside, plane = (line < lines) & (column < w), line // h
    image, channel = plane // channels, (plane % channels).to(tl.int64)
    total = tl.zeros([ROWS, COLUMNS], tl.float64 if DOUBLE else tl.float32)
    for number in tl.range(0, KH * KW, loop_unroll_factor=4):
        # where the window starts that has a number of dx at this place
        i, j = line % h + TOP - number // KW * DH, column + LEFT - number % KW * DW
        r, c = i // SH, j // SW
        there = inside & (i >= 0) & (r < ho) & (j >= 0) & (c < wo)
        there &= (i % SH == 0) & (j % SW == 0)
        at = (((channel * KH * KW + number) * images + image) * ho + r) * wo + c
        total += tl.load(columns_ptr + at, there, other=0).to(total.dtype)
    to = line.to(tl.int64) * w + column
    tl.store(dx_ptr + to, total.to(dx_ptr.dtype.element_ty), inside)


def _shares(n: int, image: int) -> Iterator[slice]:
    """n images, of `image` numbers in columns each, in parts of at most COLUMNS_THERE."""
    images = max(1, COLUMNS_THERE // max(image, 1))
    return (slice(first, min(first + images, n)) for first in range(0, n, images))


def _columns_triton(x: xp.ndarray, win: Windows, count: tuple) -> Iterator[tuple]:
    """(images, columns (c · kh · kw, pixels of all of them)), all in one buffer."""
    (n, c, h, w), (ho, wo), columns = x.shape, count, xp.Buffer(x)
    depth = c * win.kernel[0] * win.kernel[1]
    for part in _shares(n, depth * ho * wo):
        lines = (part.stop - part.start) * ho
        seen, (grid, shape) = columns(depth, lines * wo), blocks(lines, wo, BLOCK)
        by = {**win.constants(), **shape}
        _unroll_kernel[(*grid, c)](x[part], seen, lines, c, h, w, ho, wo, **by)
        yield part, seen


def _channels_first(g: xp.ndarray, groups: int) -> xp.ndarray:
    """g (images, o, ho, wo) -> (groups, o / groups, pixels of all images)."""
    return contiguous(g.swapaxes(0, 1)).reshape(groups, g.shape[1] // groups, g.size // g.shape[1])


@forward.version("triton")
def _forward_triton(x, weight, bias, win, groups=1, count=None):
    if not _served(x, weight):
        return forward.plain(x)(x, weight, bias, win, groups, count)
    x, o, count = contiguous(x), len(weight), count or win.grid(x.shape[2:])
    matrix = contiguous(weight).reshape(groups, o // groups, weight[0].size)
    y = xp.empty_like(x, shape=(len(x), o, *count))
    shift = x.dtype.type(0) if bias is None else bias[:, None, None]
    for part, seen in _columns_triton(x, win, count):
        planes = product(matrix, seen.reshape(groups, -1, seen.shape[1])).reshape(o, -1, *count)
        xp.add(planes.swapaxes(0, 1), shift, out=y[part])
    return y


@backward_weight.version("triton")
def _backward_weight_triton(g, x, shape, win, groups=1):
    if not _served(g, x):
        return backward_weight.plain(g)(g, x, shape, win, groups)
    x, o, width = contiguous(x), shape[0], math.prod(shape[1:])
    dw = xp.zeros_like(x, shape=(groups, o // groups, width))
    for part, seen in _columns_triton(x, win, g.shape[2:]):
        turned = seen.reshape(groups, width, seen.shape[1]).swapaxes(1, 2)
        dw += xp.matmul(_channels_first(g[part], groups), turned)
    return dw.reshape(shape)


@backward_input.version("triton")
def _backward_input_triton(g, weight, size, win, groups=1):
    if not _served(g, weight):
        return backward_input.plain(g)(g, weight, size, win, groups)
    (n, o), (ho, wo), (h, w), c = g.shape[:2], g.shape[2:], size, weight.shape[1] * groups
    matrix = weight.reshape(groups, o // groups, weight[0].size).swapaxes(1, 2)
    dx = xp.empty_like(g, order="C", shape=(n, c, h, w))
    for part in _shares(n, groups * weight[0].size * ho * wo):
        images, seen = part.stop - part.start, xp.matmul(matrix, _channels_first(g[part], groups))
        grid, shape = blocks(images * c * h, w, BLOCK)
        _roll_back_kernel[grid](
            seen, dx[part], images * c * h, images, c, h, w, ho, wo,
            DOUBLE=g.dtype == xp.float64, **win.constants(), **shape,
        )  # fmt: skip
    return dx


def _served(x, other):
    return real(x) and x.dtype == other.dtype
