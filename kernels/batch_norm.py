"""Batch norm (Ioffe & Szegedy 2015): each channel normalised over the batch.

The ladder, x (n, c, l) of b bytes a number:

- formula: whole arrays, an operation at a time: moments move 6nclb bytes, forward 6nclb and
  backward 20nclb.
- loop: a plane at a time, which is the l numbers of one channel of one sample. Moments read x once,
  nclb bytes: the numbers of a plane are in the cache when its mean is known, and planes are merged
  by their means (Chan, Golub & LeVeque 1983). Forward moves 2nclb bytes, and backward 5nclb,
  because the sums over all samples come before dx (backward_affine, then backward_input). If l is
  1, vector instructions go along the channels instead.
- tile program: the same bytes. A tile of samples, channels and positions is in registers. For a
  sum over many tiles, each program adds up a part of them, and another one adds up the parts,
  always in the same order.
"""

from __future__ import annotations

from typing import Any

from . import arrays as xp
from .dispatch import formula
from .elementary import ROWS, row_sum
from .half_precision import wide
from .launch import contiguous, next_power_of_2, triton_kernel
from .layer_norm import square_distance
from .loops import F, Out, helper, loop, real
from .norm_triton import added_up

tl: Any = None  # Triton's language, once a kernel is launched

TILE = 2048  # numbers a tile: 16 a thread; of float64, half as many
ABREAST = 64  # channels of a tile at most: their numbers lie side by side where l is 1
PROGRAMS = 528  # that sum, four for each of an H100's multiprocessors
MERGED = 1024  # partial sums a program merges, at most

# The formula


@formula
def moments(x: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """Mean and variance (divided by the count) of each channel: (n, c, l) -> (c,) twice."""
    return x.mean((0, 2)), x.var((0, 2))


@formula
def forward(
    x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray,
    weight: xp.ndarray | None, bias: xp.ndarray | None,
) -> xp.ndarray:  # fmt: skip
    """(x - mean) · rstd · weight + bias; x (n, c, l), all others (c,)."""
    y = (x - mean[:, None]) * (rstd if weight is None else rstd * weight)[:, None]
    return y if bias is None else y + bias[:, None]


@formula
def backward_affine(
    g: xp.ndarray, x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray]:
    """Cotangents of weight and bias: Σ g · normal and Σ g of each channel, (c,) twice."""
    return (g * ((x - mean[:, None]) * rstd[:, None])).sum((0, 2)), g.sum((0, 2))


@formula
def backward_input(
    g: xp.ndarray, x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray,
    weight: xp.ndarray | None, slope: xp.ndarray, level: xp.ndarray,
) -> xp.ndarray:  # fmt: skip
    """The cotangent of x, in g's shape if that is another; mean and rstd move with x.

    `slope` and `level` (c,) are the results of backward_affine over the count of the batch.
    """
    shape, off = g.shape, (x - mean[:, None]) * (rstd * slope)[:, None]
    dx = g.reshape(x.shape) - off - level[:, None]
    return (dx * (rstd if weight is None else rstd * weight)[:, None]).reshape(shape)


def backward(
    g: xp.ndarray, x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray,
    weight: xp.ndarray | None, of_batch: bool,
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:  # fmt: skip
    """Cotangents of x (n, c, l), in g's shape if that is another, weight (c,) and bias (c,).

    of_batch: mean and rstd were those of x; otherwise they are constants.
    """
    flat = g.reshape(x.shape)
    dw, db = backward_affine(flat, x, mean, rstd)
    if not of_batch:
        dx = forward(flat, xp.zeros_like(rstd), rstd, weight, None)
        return dx.reshape(g.shape), dw, db
    count = x.shape[0] * x.shape[2]
    return backward_input(g, x, mean, rstd, weight, dw / count, db / count), dw, db


def follow(running: xp.ndarray, new: xp.ndarray, momentum: float) -> None:
    """running += momentum · (new - running), rounded once where it has 16 bits."""
    old = wide(running)
    running[...] = old + momentum * (new - old)


# The loop over planes


@loop
def plane_moments(x: F[:, :, ::1], mean: Out[::1], variance: Out[::1]):
    n, c, length = x.shape
    mean[:], variance[:] = 0.0, 0.0  # sums until the end
    for i in range(n):
        before = real(i * length)  # numbers of a channel in the samples before
        share = before / (before + real(length))
        for j in range(c):
            total = row_sum(x[i, j])
            m = total / real(length)
            off = m - mean[j] / max(before, 1.0)
            mean[j] += total
            variance[j] += square_distance(x[i, j], m) + off * (off * share * real(length))
    for j in range(c):
        mean[j] /= real(n * length)
        variance[j] /= real(n * length)


@loop
def normal_planes(x: F[:, :, ::1], mean: F[::1], scale: F[::1], bias: F[::1], y: Out[:, :, ::1]):
    n, c, length = x.shape
    for i in range(n):
        for j in range(c):
            m, s, b = mean[j], scale[j], bias[j]
            for k in range(length):
                y[i, j, k] = (x[i, j, k] - m) * s + b


@helper(sums=True)
def product_and_sum(g, x, mean):
    """Σ g·(x - mean) and Σ g."""
    product = 0.0
    total = 0.0
    for k in range(len(x)):
        product += g[k] * (x[k] - mean)
        total += g[k]
    return product, total


@loop
def plane_sums(
    g: F[:, :, ::1], x: F[:, :, ::1], mean: F[::1], rstd: F[::1], dw: Out[::1], db: Out[::1]
):  # fmt: skip
    n, c, _ = x.shape
    dw[:], db[:] = 0.0, 0.0
    for i in range(n):
        for j in range(c):
            product, total = product_and_sum(g[i, j], x[i, j], mean[j])
            dw[j] += product * rstd[j]
            db[j] += total


@loop
def plane_slopes(
    g: F[:, :, ::1], x: F[:, :, ::1], mean: F[::1], scale: F[::1], slope: F[::1], level: F[::1],
    dx: Out[:, :, ::1],
):  # fmt: skip
    n, c, length = x.shape
    for i in range(n):
        for j in range(c):
            m, s, t, b = mean[j], scale[j], slope[j], level[j]
            for k in range(length):
                dx[i, j, k] = (g[i, j, k] - (x[i, j, k] - m) * t - b) * s


# The loop over rows, for l = 1


@loop
def row_moments(x: F[:, ::1], part: Out[::1], mean: Out[::1], variance: Out[::1]):
    # part (c,): the sum of up to ROWS rows, so that rounding does not grow with n
    n, c = x.shape
    mean[:], variance[:] = 0.0, 0.0
    for start in range(0, n, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, n)):
            for j in range(c):
                part[j] += x[i, j]
        for j in range(c):
            mean[j] += part[j] / real(n)
    for start in range(0, n, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, n)):
            for j in range(c):
                part[j] += (x[i, j] - mean[j]) * (x[i, j] - mean[j])
        for j in range(c):
            variance[j] += part[j] / real(n)


@loop
def normal_rows(x: F[:, ::1], mean: F[::1], scale: F[::1], bias: F[::1], y: Out[:, ::1]):
    n, c = x.shape
    for i in range(n):
        for j in range(c):
            y[i, j] = (x[i, j] - mean[j]) * scale[j] + bias[j]


@loop
def row_sums(
    g: F[:, ::1], x: F[:, ::1], mean: F[::1], rstd: F[::1],
    part: Out[:, ::1], dw: Out[::1], db: Out[::1],
):  # fmt: skip
    # part (2, c): the sums of up to ROWS rows
    n, c = x.shape
    dw[:], db[:] = 0.0, 0.0
    for start in range(0, n, ROWS):
        part[:] = 0.0
        for i in range(start, min(start + ROWS, n)):
            for j in range(c):
                part[0, j] += g[i, j] * (x[i, j] - mean[j])
                part[1, j] += g[i, j]
        for j in range(c):
            dw[j] += part[0, j] * rstd[j]
            db[j] += part[1, j]


@loop
def row_slopes(
    g: F[:, ::1], x: F[:, ::1], mean: F[::1], scale: F[::1], slope: F[::1], level: F[::1],
    dx: Out[:, ::1],
):  # fmt: skip
    n, c = x.shape
    for i in range(n):
        for j in range(c):
            dx[i, j] = (g[i, j] - (x[i, j] - mean[j]) * slope[j] - level[j]) * scale[j]


@moments.version("numba")
def _moments_loop(x):
    x, sums = xp.ascontiguousarray(x), xp.empty_like(x, order="C", shape=(3, x.shape[1]))
    if x.shape[2] == 1:
        row_moments(x[:, :, 0], *sums)
    else:
        plane_moments(x, *sums[1:])
    return sums[1], sums[2]


@forward.version("numba")
def _forward_loop(x, mean, rstd, weight, bias):
    x, scale = xp.ascontiguousarray(x), rstd if weight is None else rstd * weight
    y, bias = xp.empty_like(x), xp.zeros_like(scale) if bias is None else bias
    if x.shape[2] == 1:
        normal_rows(x[:, :, 0], mean, scale, bias, y[:, :, 0])
    else:
        normal_planes(x, mean, scale, bias, y)
    return y


@backward_affine.version("numba")
def _backward_affine_loop(g, x, mean, rstd):
    (g, x), sums = map(xp.ascontiguousarray, (g, x)), xp.empty_like(x, shape=(4, len(mean)))
    if x.shape[2] == 1:
        row_sums(g[:, :, 0], x[:, :, 0], mean, rstd, sums[2:], *sums[:2])
    else:
        plane_sums(g, x, mean, rstd, *sums[:2])
    return sums[0], sums[1]


@backward_input.version("numba")
def _backward_input_loop(g, x, mean, rstd, weight, slope, level):
    dx, scale = (
        xp.empty_like(x, order="C", shape=g.shape),
        rstd if weight is None else rstd * weight,
    )
    g, x = xp.ascontiguousarray(g).reshape(x.shape), xp.ascontiguousarray(x)
    given, to = (g, x, mean, scale, rstd * slope, level), dx.reshape(x.shape)
    if x.shape[2] == 1:
        row_slopes(g[:, :, 0], x[:, :, 0], *given[2:], to[:, :, 0])
    else:
        plane_slopes(*given, to)
    return dx


# The tile program: a tile is (SAMPLES, CHANNELS, POSITIONS), what belongs to channels is of shape
# (1, CHANNELS, 1). Its pointers are to x (n, c, l) and to vectors (c,).


@triton_kernel
def _place(c, CHANNELS: tl.constexpr):
    """Which part of the tiles is this program's, and which channels (those under c)."""
    blocks = tl.cdiv(c, CHANNELS)
    first = tl.program_id(0) % blocks * CHANNELS
    return tl.program_id(0) // blocks, first + tl.arange(0, CHANNELS)[None, :, None]


@triton_kernel
def _tile(
    number, channel, n, c, length, SAMPLES: tl.constexpr, POSITIONS: tl.constexpr
):  # fmt: skip
    """Where the numbers of a tile are, which of them there are, and how many a channel."""
    across = tl.cdiv(length, POSITIONS)
    first, start = number // across * SAMPLES, number % across * POSITIONS
    sample = first + tl.arange(0, SAMPLES)[:, None, None]
    position = start + tl.arange(0, POSITIONS)[None, None, :]
    at = (sample.to(tl.int64) * c + channel) * length + position
    inside = (sample < n) & (channel < c) & (position < length)
    return at, inside, tl.minimum(SAMPLES, n - first) * tl.minimum(POSITIONS, length - start)


@triton_kernel
def _by_channel(x):
    return tl.sum(tl.sum(x, 2), 0)[None, :, None]


@triton_kernel
def merged(seen, total, squares, count, more, spread):
    """How many numbers, Σ x and Σ (x - mean)²: of some, and of others, to those of all."""
    apart = more / count - total / tl.maximum(seen, 1)
    squares += spread + apart * (apart * (seen / (seen + count)) * count)
    return seen + count, total + more, squares


@triton_kernel
def _moments_kernel(
    x_ptr, sums_ptr, n, c, length, tiles, parts, share, DOUBLE: tl.constexpr,
    SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Of `share` tiles: how many numbers a channel, their sum, and Σ (x - their mean)², to sums
    (3, parts, c). Tiles are merged by their means, as planes are in the loop."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    part, channel = _place(c, CHANNELS)
    seen = tl.zeros([1, 1, 1], kind)
    total = tl.zeros([1, CHANNELS, 1], kind)
    squares = tl.zeros([1, CHANNELS, 1], kind)
    for number in range(part * share, tl.minimum((part + 1) * share, tiles)):
        at, inside, count = _tile(number, channel, n, c, length, SAMPLES, POSITIONS)
        x = tl.load(x_ptr + at, inside, other=0).to(kind)
        count = count.to(kind)
        more = _by_channel(x)
        off = tl.where(inside, x - more / count, 0.0)
        spread = _by_channel(off * off)
        seen, total, squares = merged(seen, total, squares, count, more, spread)
    row = part.to(tl.int64)
    tl.store(sums_ptr + row * c + channel, seen + tl.zeros_like(total), channel < c)
    tl.store(sums_ptr + (parts + row) * c + channel, total, channel < c)
    tl.store(sums_ptr + (2 * parts + row) * c + channel, squares, channel < c)


@triton_kernel
def _merge_kernel(
    sums_ptr, mean_ptr, variance_ptr, parts, c, PARTS: tl.constexpr, CHANNELS: tl.constexpr
):
    """sums (3, parts, c) -> mean and variance (c,)."""
    row = tl.arange(0, PARTS)[:, None].to(tl.int64)
    channel = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)[None, :]
    inside = (row < parts) & (channel < c)
    count = tl.load(sums_ptr + row * c + channel, inside, other=0)
    total = tl.load(sums_ptr + (parts + row) * c + channel, inside, other=0)
    squares = tl.load(sums_ptr + (2 * parts + row) * c + channel, inside, other=0)
    everything = tl.maximum(tl.sum(count, 0)[None, :], 1)
    mean = tl.sum(total, 0)[None, :] / everything
    apart = total / tl.maximum(count, 1) - mean
    variance = tl.sum(squares + count * apart * apart, 0)[None, :] / everything
    tl.store(mean_ptr + channel, mean.to(mean_ptr.dtype.element_ty), channel < c)
    tl.store(variance_ptr + channel, variance.to(variance_ptr.dtype.element_ty), channel < c)


@triton_kernel
def _sums_kernel(
    g_ptr, x_ptr, mean_ptr, rstd_ptr, sums_ptr, n, c, length, tiles, parts, share,
    DOUBLE: tl.constexpr, SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Of `share` tiles: Σ g · normal and Σ g of each channel, to sums (2, parts, c)."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    part, channel = _place(c, CHANNELS)
    mean = tl.load(mean_ptr + channel, channel < c, other=0).to(kind)
    rstd = tl.load(rstd_ptr + channel, channel < c, other=0).to(kind)
    product = tl.zeros([SAMPLES, CHANNELS, POSITIONS], kind)
    total = tl.zeros([SAMPLES, CHANNELS, POSITIONS], kind)
    for number in range(part * share, tl.minimum((part + 1) * share, tiles)):
        at, inside, _ = _tile(number, channel, n, c, length, SAMPLES, POSITIONS)
        g = tl.load(g_ptr + at, inside, other=0).to(kind)
        x = tl.load(x_ptr + at, inside, other=0).to(kind)
        product += tl.where(inside, g * (x - mean), 0.0)
        total += g
    row = part.to(tl.int64)
    tl.store(sums_ptr + row * c + channel, _by_channel(product) * rstd, channel < c)
    tl.store(sums_ptr + (parts + row) * c + channel, _by_channel(total), channel < c)


@triton_kernel
def _forward_kernel(
    x_ptr, mean_ptr, rstd_ptr, w_ptr, b_ptr, y_ptr, n, c, length, DOUBLE: tl.constexpr,
    SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    number, channel = _place(c, CHANNELS)
    at, inside, _ = _tile(number, channel, n, c, length, SAMPLES, POSITIONS)
    mean = tl.load(mean_ptr + channel, channel < c, other=0).to(kind)
    scale = tl.load(rstd_ptr + channel, channel < c, other=0).to(kind)
    if w_ptr is not None:
        scale *= tl.load(w_ptr + channel, channel < c, other=0).to(kind)
    y = (tl.load(x_ptr + at, inside, other=0).to(kind) - mean) * scale
    if b_ptr is not None:
        y += tl.load(b_ptr + channel, channel < c, other=0).to(kind)
    tl.store(y_ptr + at, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _slope_kernel(
    g_ptr, x_ptr, mean_ptr, rstd_ptr, w_ptr, slope_ptr, level_ptr, dx_ptr, n, c, length,
    DOUBLE: tl.constexpr, SAMPLES: tl.constexpr, CHANNELS: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    number, channel = _place(c, CHANNELS)
    at, inside, _ = _tile(number, channel, n, c, length, SAMPLES, POSITIONS)
    mean = tl.load(mean_ptr + channel, channel < c, other=0).to(kind)
    scale = tl.load(rstd_ptr + channel, channel < c, other=0).to(kind)
    slope = tl.load(slope_ptr + channel, channel < c, other=0).to(kind) * scale
    level = tl.load(level_ptr + channel, channel < c, other=0).to(kind)
    if w_ptr is not None:
        scale *= tl.load(w_ptr + channel, channel < c, other=0).to(kind)
    off = tl.load(x_ptr + at, inside, other=0).to(kind) - mean
    dx = (tl.load(g_ptr + at, inside, other=0).to(kind) - off * slope - level) * scale
    tl.store(dx_ptr + at, dx.to(dx_ptr.dtype.element_ty), inside)


def cut(shape: tuple[int, ...], double: bool) -> tuple[int, int, dict[str, Any]]:
    """How many blocks of channels x (n, c, length) has, how many tiles each, and the constants."""
    n, c, length = shape
    tile = TILE // (1 + double)
    positions = min(tile, next_power_of_2(length))
    channels = min(tile // positions, ABREAST, next_power_of_2(c))
    samples = min(tile // (positions * channels), next_power_of_2(n))
    constants = {
        "DOUBLE": double, "SAMPLES": samples, "CHANNELS": channels, "POSITIONS": positions
    }  # fmt: skip
    return -(-c // channels), -(-n // samples) * -(-length // positions), constants


def _run(kernel, *arrays, like):
    """One program a tile, on arrays of the shape and dtype of `like` and on vectors."""
    blocks, tiles, constants = cut(like.shape, like.dtype == xp.float64)
    kernel[(blocks * tiles,)](*map(contiguous, arrays), *like.shape, **constants)


def _sum(kernel, *arrays, lines, like):
    """Partial sums (lines, parts, c) in float32 or, of float64, float64."""
    blocks, tiles, constants = cut(like.shape, like.dtype == xp.float64)
    share = -(-tiles // max(1, PROGRAMS // blocks))
    parts, kind = -(-tiles // share), xp.float64 if constants["DOUBLE"] else xp.float32
    sums = xp.empty_like(like, kind, order="C", shape=(lines, parts, like.shape[1]))
    kernel[(blocks * parts,)](
        *map(contiguous, arrays), sums, *like.shape, tiles, parts, share, **constants
    )
    return sums


@moments.version("triton")
def _moments_triton(x):
    if not x.size:
        return moments.plain(x)(x)
    sums = _sum(_moments_kernel, x, lines=3, like=x)
    _, parts, c = sums.shape
    mean, variance = (xp.empty_like(x, order="C", shape=c) for _ in range(2))
    tall = next_power_of_2(parts)
    across = max(1, min(MERGED // tall, ABREAST))
    _merge_kernel[(-(-c // across),)](sums, mean, variance, parts, c, PARTS=tall, CHANNELS=across)
    return mean, variance


@forward.version("triton")
def _forward_triton(x, mean, rstd, weight, bias):
    if not x.size:
        return forward.plain(x)(x, mean, rstd, weight, bias)
    y = xp.empty_like(x, order="C")
    _run(_forward_kernel, x, mean, rstd, weight, bias, y, like=x)
    return y


@backward_affine.version("triton")
def _backward_affine_triton(g, x, mean, rstd):
    if not x.size:
        return backward_affine.plain(x)(g, x, mean, rstd)
    dw, db = added_up(_sum(_sums_kernel, g, x, mean, rstd, lines=2, like=x), x)
    return dw, db


@backward_input.version("triton")
def _backward_input_triton(g, x, mean, rstd, weight, slope, level):
    if not x.size:
        return backward_input.plain(x)(g, x, mean, rstd, weight, slope, level)
    dx = xp.empty_like(x, order="C", shape=g.shape)
    _run(_slope_kernel, g, x, mean, rstd, weight, slope, level, dx, like=x)
    return dx
