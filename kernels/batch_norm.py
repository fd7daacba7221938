"""Batch norm (Ioffe & Szegedy 2015): each channel normalised over the batch.

The ladder, x (n, c, l) of b bytes a number:

- formula: whole arrays, an operation at a time: moments move 6nclb bytes, forward 6nclb and
  backward 20nclb.
- loop: a plane at a time, which is the l numbers of one channel of one sample. Moments read x once,
  nclb bytes: the numbers of a plane are in the cache when its mean is known, and planes are merged
  by their means (Chan, Golub & LeVeque 1983). Forward moves 2nclb bytes, and backward 5nclb,
  because the sums over all samples come before dx (backward_affine, then backward_input). If l is
  1, vector instructions go along the channels instead.

On a GPU the formula runs.
"""

from __future__ import annotations

from . import arrays as xp
from .dispatch import formula
from .elementary import ROWS, row_sum
from .half_precision import wide
from .layer_norm import square_distance
from .loops import F, Out, helper, loop, real

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
