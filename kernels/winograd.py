"""Convolution by 3 x 3 kernels with 4 products in place of 9 (Winograd 1980, Lavin & Gray 2016).

Two results of a kernel (w0, w1, w2) over a row d take four products in place of six:

    y0 = w0 d0 + w1 d1 + w2 d2        m0 = w0 (d0 - d2)        m1 = (w0 + w1 + w2)/2 (d1 + d2)
    y1 = w0 d1 + w1 d2 + w2 d3        m3 = w2 (d1 - d3)        m2 = (w0 - w1 + w2)/2 (d2 - d1)

where y0 = m0 + m1 + m2 and y1 = m1 - m2 - m3. Down and across at once, a tile of 2 x 2 results
takes 16 products in place of 36. With all channels, each of the 16 is a product of matrices:
(o, c) of the kernel's sums times (c, tiles) of the input's. Backward to the weight is the adjoint,
from right to left. An infinity becomes a NaN: ∞ - ∞.

The loops split a plane into four quarters, by even and odd rows and columns. Then the tiles of a
plane are one long row, and their sums are sums of shifted rows, which need no gather instructions.
Each row of tiles ends with one more that means nothing; it keeps the shifts the same everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import arrays as xp
from .loops import F, Out, loop
from .product import product
from .windows import Windows, split

TILES = 288  # a block's tiles, at most: 16 sums of 64 channels are 1.1 MiB in float32
CHANNELS, LEAST = 16, 64  # input and output channels, and pixels, from which the sums pay


def suits(win: Windows, channels: tuple[int, int], count: tuple) -> bool:
    """Whether the kernel is 3 x 3 without gaps, and the products are large enough."""
    close = win.kernel == (3, 3) and win.stride == win.dilation == (1, 1)
    wide = min(channels) >= CHANNELS and min(count) > 1 and count[0] * count[1] >= LEAST
    return close and wide


# The loops: n tiles of a block, `pitch` a row


@loop
def input_sums(
    x: F[:, :, :, ::1], image: int, pair: int, top: int, left: int, line: Out[::1],
    quarters: Out[:, :, :, ::1], sums: Out[:, :, ::1], v: Out[:, :, :, ::1],
):  # fmt: skip
    # quarters (2, 2, rows of tiles + 2, pitch), sums (4, 2, n + 1), v (16, c, images, n)
    _, c, images, n = v.shape
    pitch = quarters.shape[3]
    for ch in range(c):
        for im in range(images):
            split(x[image + im, ch], 2 * pair - top, left, 0.0, line, quarters)
            for b in range(2):  # down
                d0, d1 = quarters[0, b].reshape(-1), quarters[1, b].reshape(-1)
                d2, d3 = d0[pitch:], d1[pitch:]
                s0, s1, s2, s3 = sums[0, b], sums[1, b], sums[2, b], sums[3, b]
                for t in range(n + 1):
                    s0[t] = d0[t] - d2[t]
                for t in range(n + 1):
                    s1[t] = d1[t] + d2[t]
                for t in range(n + 1):
                    s2[t] = d2[t] - d1[t]
                for t in range(n + 1):
                    s3[t] = d1[t] - d3[t]
            for m in range(4):  # across
                d0, d1 = sums[m, 0], sums[m, 1]
                d2, d3 = d0[1:], d1[1:]
                v0, v1 = v[4 * m, ch, im], v[4 * m + 1, ch, im]
                v2, v3 = v[4 * m + 2, ch, im], v[4 * m + 3, ch, im]
                for t in range(n):
                    v0[t] = d0[t] - d2[t]
                for t in range(n):
                    v1[t] = d1[t] + d2[t]
                for t in range(n):
                    v2[t] = d2[t] - d1[t]
                for t in range(n):
                    v3[t] = d1[t] - d3[t]


@loop
def outputs(
    m: F[:, :, :, ::1], bias: F[::1], image: int, pair: int, sums: Out[:, :, ::1],
    y: Out[:, :, :, ::1],
):  # fmt: skip
    # m (16, o, images, n), sums (2, 4, n)
    _, o, images, n = m.shape
    h, w = y.shape[2:]
    pitch = (w + 1) // 2 + 1
    for k in range(o):
        shift = bias[k]
        for im in range(images):
            for b in range(4):  # down
                m0, m1, m2, m3 = m[b, k, im], m[4 + b, k, im], m[8 + b, k, im], m[12 + b, k, im]
                y0, y1 = sums[0, b], sums[1, b]
                for t in range(n):
                    y0[t] = m0[t] + m1[t] + m2[t]
                for t in range(n):
                    y1[t] = m1[t] - m2[t] - m3[t]
            for a in range(2):  # across
                m0, m1, m2, m3 = sums[a, 0], sums[a, 1], sums[a, 2], sums[a, 3]
                for t in range(n):
                    m0[t] += m1[t] + m2[t] + shift
                for t in range(n):
                    m1[t] += shift - m2[t] - m3[t]
                for i in range(min(n // pitch, (h - a + 1) // 2 - pair)):
                    row = y[image + im, k, 2 * (pair + i) + a]
                    even, odd = m0[i * pitch :], m1[i * pitch :]
                    for j in range(w // 2):
                        row[2 * j] = even[j]
                        row[2 * j + 1] = odd[j]
                    if w % 2:
                        row[w - 1] = even[w // 2]


@loop
def output_slopes(
    g: F[:, :, :, ::1], image: int, pair: int, line: Out[::1], quarters: Out[:, :, :, ::1],
    sums: Out[:, :, ::1], u: Out[:, :, :, ::1],
):  # fmt: skip
    # as input_sums, u (16, o, images, n)
    _, o, images, n = u.shape
    for k in range(o):
        for im in range(images):
            split(g[image + im, k], 2 * pair, 0, 0.0, line, quarters)
            for b in range(2):  # down
                g0, g1 = quarters[0, b].reshape(-1), quarters[1, b].reshape(-1)
                s0, s1, s2, s3 = sums[0, b], sums[1, b], sums[2, b], sums[3, b]
                for t in range(n):
                    s0[t] = g0[t]
                for t in range(n):
                    s1[t] = g0[t] + g1[t]
                for t in range(n):
                    s2[t] = g0[t] - g1[t]
                for t in range(n):
                    s3[t] = -g1[t]
            for m in range(4):  # across
                g0, g1 = sums[m, 0], sums[m, 1]
                u0, u1 = u[4 * m, k, im], u[4 * m + 1, k, im]
                u2, u3 = u[4 * m + 2, k, im], u[4 * m + 3, k, im]
                for t in range(n):
                    u0[t] = g0[t]
                for t in range(n):
                    u1[t] = g0[t] + g1[t]
                for t in range(n):
                    u2[t] = g0[t] - g1[t]
                for t in range(n):
                    u3[t] = -g1[t]


# Around the loops


class Blocks:
    """How planes are cut into blocks of tiles; the loops' memory, which all blocks use again."""

    def __init__(self, x: xp.ndarray, count: tuple, *channels: int):
        down, self.pitch = (count[0] + 1) // 2, (count[1] + 1) // 2 + 1
        rows = -(-down // -(-down * self.pitch // TILES))  # evenly cut
        images = max(1, min(len(x), TILES // (rows * self.pitch)))
        self.cuts = [
            (image, min(images, len(x) - image), row, min(rows, down - row))
            for image in range(0, len(x), images)
            for row in range(0, down, rows)
        ]
        most, new = rows * self.pitch, lambda *shape: xp.zeros_like(x, order="C", shape=shape)
        self.line, self.quarters = new(2 * self.pitch), new(2, 2, rows + 2, self.pitch)
        self.sums = new(4, 2, most + 1)
        self.all = [
            (c, xp.empty_like(x, order="C", shape=16 * c * images * most)) for c in channels
        ]

    def __iter__(self) -> Iterator[tuple]:
        """(first image, first row of tiles, for each of `channels` an array (16, c, images, n))."""
        for image, images, row, rows in self.cuts:
            n = rows * self.pitch
            yield (
                image,
                row,
                *(whole[: 16 * c * images * n].reshape(16, c, images, n) for c, whole in self.all),
            )


def _sums(a: xp.ndarray) -> xp.ndarray:
    """Rows a (3, …) of the kernel -> (4, …), by which sums of the input are multiplied."""
    half, odd = (a[0] + a[2]) / 2, a[1] / 2
    return xp.stack([a[0], half + odd, half - odd, a[2]])


def _sums_adjoint(a: xp.ndarray) -> xp.ndarray:
    """(4, …) -> (3, …), the adjoint of _sums."""
    half = (a[1] + a[2]) / 2
    return xp.stack([a[0] + half, (a[1] - a[2]) / 2, half + a[3]])


def forward(
    x: xp.ndarray, weight: xp.ndarray, bias: xp.ndarray, win: Windows, groups: int, count: tuple
) -> xp.ndarray:
    """x (n, c, h, w), weight (o, c/groups, 3, 3), bias (o,) -> (n, o, *count)."""
    (o, c), ((top, _), (left, _)) = weight.shape[:2], win.padding
    down = _sums(weight.transpose(2, 3, 0, 1))  # (4, 3, o, c/groups)
    matrix = _sums(down.swapaxes(0, 1)).swapaxes(0, 1).reshape(16, groups, o // groups, c)
    y, use = xp.empty_like(x, shape=(len(x), o, *count)), Blocks(x, count, c * groups, o)
    for image, row, v, m in use:
        input_sums(x, image, row, top, left, use.line, use.quarters, use.sums, v)
        product(matrix, v.reshape(16, groups, c, -1), m.reshape(16, groups, o // groups, -1))
        outputs(m, bias, image, row, use.sums.reshape(2, 4, -1), y)
    return y


def backward_weight(
    g: xp.ndarray, x: xp.ndarray, shape: tuple, win: Windows, groups: int
) -> xp.ndarray:
    """g (n, o, ho, wo), x (n, c, h, w) -> the weight's cotangent, of `shape`."""
    (o, c), ((top, _), (left, _)) = shape[:2], win.padding
    dm, use = xp.zeros((16, groups, o // groups, c), x.dtype), Blocks(x, g.shape[2:], c * groups, o)
    for image, row, v, u in use:
        input_sums(x, image, row, top, left, use.line, use.quarters, use.sums, v)
        output_slopes(g, image, row, use.line, use.quarters, use.sums, u)
        parts = v.reshape(16, groups, c, -1).swapaxes(2, 3)
        dm += xp.matmul(u.reshape(16, groups, o // groups, -1), parts)
    across = _sums_adjoint(dm.reshape(4, 4, o, c).swapaxes(0, 1))  # (3, 4, o, c/groups)
    return _sums_adjoint(across.swapaxes(0, 1)).transpose(2, 3, 0, 1).copy()
