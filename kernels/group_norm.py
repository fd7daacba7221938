"""Group norm (Wu & He 2018): layer norm of each group of channels, weight and bias by channel.

The ladder, x (n, c, l) of b bytes a number:

- formula: layer norm (its fast version if there is one), and then whole arrays: forward moves
  4nclb bytes beside those of layer norm, backward 11nclb.
- loop: a group at a time, which stays in the cache: 2nclb bytes forward, 3nclb backward.
- tile program: a group a program, a tile of its planes at a time. A plane is the l numbers of one
  channel of one sample. The group is read twice, for its sums and then for the result: 3nclb bytes
  forward, 5nclb backward. A small group is still in the cache when it is read again; then memory
  moves the loop's bytes.

Every version keeps 1/deviation and the mean of each group for backward.
"""

from __future__ import annotations

import math
from typing import Any

from . import arrays as xp
from . import layer_norm
from .batch_norm import merged, product_and_sum
from .dispatch import formula
from .elementary import row_sum
from .launch import contiguous, next_power_of_2, triton_kernel
from .layer_norm import square_distance
from .loops import F, Out, loop, real
from .norm_triton import added_up

tl: Any = None  # Triton's language, once a kernel is launched

TILE = 4096  # numbers a tile: 16 a thread of 8 warps; of float64, half as many

# The formula


@formula
def forward(
    x: xp.ndarray, weight: xp.ndarray | None, bias: xp.ndarray | None, groups: int, eps: float
) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, c, l), weight and bias (c,) -> y (n, c, l) and stats (2, n · groups)."""
    y, stats = layer_norm.forward(_groups(x, groups), None, None, eps)
    y = y.reshape(x.shape)
    y = y if weight is None else y * weight[:, None]
    return y if bias is None else y + bias[:, None], stats


@formula
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, groups: int, stats: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """The cotangents of x, in g's shape if that is another, and of weight and bias (c,)."""
    shape, g = g.shape, g.reshape(x.shape)
    rows, (rstd, mean) = _groups(x, groups), stats[:, :, None]
    normal = ((rows - mean) * rstd).reshape(x.shape)
    u = g if weight is None else g * weight[:, None]
    dx, _, _ = layer_norm.backward(_groups(u, groups), rows, None, stats)
    return dx.reshape(shape), (g * normal).sum((0, 2)), g.sum((0, 2))


def _groups(x, groups):
    """(n, c, l) -> (n · groups, c / groups · l)."""
    n, c, length = x.shape
    return x.reshape(n * groups, c // groups * length)


# The loop


@loop
def group_norm_planes(
    x: F[:, :, ::1], w: F[::1], b: F[::1], groups: int, eps: float,
    y: Out[:, :, ::1], rstd: Out[::1], mean: Out[::1],
):  # fmt: skip
    n, c, length = x.shape
    size = c // groups
    count = max(real(size * length), 1.0)
    for row in range(n * groups):
        i, first = row // groups, row % groups * size
        total = 0.0
        squares = 0.0
        for j in range(first, first + size):
            total += row_sum(x[i, j])
        m = total / count
        for j in range(first, first + size):
            squares += square_distance(x[i, j], m)
        r = 1.0 / math.sqrt(squares / count + eps)
        mean[row], rstd[row] = m, r
        for j in range(first, first + size):
            scale, shift = w[j], b[j]
            for k in range(length):
                y[i, j, k] = (x[i, j, k] - m) * r * scale + shift


@loop
def group_norm_slopes(
    g: F[:, :, ::1], x: F[:, :, ::1], w: F[::1], groups: int, rstd: F[::1], mean: F[::1],
    dx: Out[:, :, ::1], dw: Out[::1], db: Out[::1],
):  # fmt: skip
    n, c, length = x.shape
    size = c // groups
    count = max(real(size * length), 1.0)
    dw[:], db[:] = 0.0, 0.0
    for row in range(n * groups):
        i, first = row // groups, row % groups * size
        m, r = mean[row], rstd[row]
        level = 0.0
        slope = 0.0
        for j in range(first, first + size):
            product, total = product_and_sum(g[i, j], x[i, j], m)
            dw[j] += product * r
            db[j] += total
            level += total * w[j] / count
            slope += product * w[j] / count * r * r
        for j in range(first, first + size):
            scale = w[j]
            for k in range(length):
                off = x[i, j, k] - m
                dx[i, j, k] = r * (g[i, j, k] * scale - level - off * slope)


@forward.version("numba")
def _forward_loop(x, weight, bias, groups, eps):
    x, (w, b) = xp.ascontiguousarray(x), layer_norm.affine(x, weight, bias)
    y, stats = xp.empty_like(x), xp.empty_like(x, order="C", shape=(2, len(x) * groups))
    group_norm_planes(x, w, b, groups, eps, y, *stats)
    return y, stats


@backward.version("numba")
def _backward_loop(g, x, weight, groups, stats):
    (w, _), c = layer_norm.affine(x, weight, None), x.shape[1]
    dx, sums = (xp.empty_like(x, order="C", shape=s) for s in (g.shape, (2, c)))
    g = xp.ascontiguousarray(g).reshape(x.shape)
    group_norm_slopes(g, x, w, groups, *stats, dx.reshape(x.shape), *sums)
    return dx, *sums


# The tile program: a group of a sample, `size` planes of `length` numbers, a program


@triton_kernel
def _tile(
    first, start, size, length, PLANES: tl.constexpr, POSITIONS: tl.constexpr
):  # fmt: skip
    """Planes (PLANES, 1), where the numbers of the tile are in the group, and which there are."""
    plane = first + tl.arange(0, PLANES)[:, None]
    position = start + tl.arange(0, POSITIONS)[None, :]
    inside = (plane < size) & (position < length)
    return plane, plane.to(tl.int64) * length + position, inside


@triton_kernel
def _forward_kernel(
    x_ptr, w_ptr, b_ptr, y_ptr, stats_ptr, rows, groups, size, length, eps: tl.constexpr,
    DOUBLE: tl.constexpr, PLANES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """stats (2, rows): 1/deviation and mean of each group of each sample."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64)
    base, channel = row * size * length, row % groups * size  # where the group begins
    seen = tl.full([], 0, kind)
    total = tl.full([], 0, kind)
    squares = tl.full([], 0, kind)
    for first in range(0, size, PLANES):
        for start in range(0, length, POSITIONS):
            _, at, inside = _tile(first, start, size, length, PLANES, POSITIONS)
            x = tl.load(x_ptr + base + at, inside, other=0).to(kind)
            count = tl.sum(inside.to(kind))
            more = tl.sum(x)
            off = tl.where(inside, x - more / count, 0.0)
            spread = tl.sum(off * off)
            seen, total, squares = merged(seen, total, squares, count, more, spread)
    mean = total / seen
    rstd = 1 / tl.sqrt(squares / seen + eps)
    tl.store(stats_ptr + row, rstd)
    tl.store(stats_ptr + rows + row, mean)
    for first in range(0, size, PLANES):
        for start in range(0, length, POSITIONS):
            plane, at, inside = _tile(first, start, size, length, PLANES, POSITIONS)
            y = (tl.load(x_ptr + base + at, inside, other=0).to(kind) - mean) * rstd
            if w_ptr is not None:
                y *= tl.load(w_ptr + channel + plane, plane < size, other=0).to(kind)
            if b_ptr is not None:
                y += tl.load(b_ptr + channel + plane, plane < size, other=0).to(kind)
            tl.store(y_ptr + base + at, y.to(y_ptr.dtype.element_ty), inside)


@triton_kernel
def _backward_kernel(
    g_ptr, x_ptr, w_ptr, stats_ptr, dx_ptr, sums_ptr, rows, groups, size, length,
    DOUBLE: tl.constexpr, PLANES: tl.constexpr, POSITIONS: tl.constexpr,
):  # fmt: skip
    """Σ g · normal and Σ g of each plane, to sums (2, n · c), and dx."""
    kind: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    row = tl.program_id(0).to(tl.int64)
    base, channel = row * size * length, row % groups * size
    rstd = tl.load(stats_ptr + row)
    mean = tl.load(stats_ptr + rows + row)
    slope = tl.full([], 0, kind)
    level = tl.full([], 0, kind)
    for first in range(0, size, PLANES):
        products = tl.zeros([PLANES, POSITIONS], kind)
        totals = tl.zeros([PLANES, POSITIONS], kind)
        for start in range(0, length, POSITIONS):
            _, at, inside = _tile(first, start, size, length, PLANES, POSITIONS)
            g = tl.load(g_ptr + base + at, inside, other=0).to(kind)
            x = tl.load(x_ptr + base + at, inside, other=0).to(kind)
            products += tl.where(inside, g * (x - mean), 0.0)
            totals += g
        product = tl.sum(products, 1)[:, None] * rstd
        total = tl.sum(totals, 1)[:, None]
        plane = first + tl.arange(0, PLANES)[:, None]
        tl.store(sums_ptr + row * size + plane, product, plane < size)
        tl.store(sums_ptr + (rows + row) * size + plane, total, plane < size)
        if w_ptr is not None:
            w = tl.load(w_ptr + channel + plane, plane < size, other=0).to(kind)
            product *= w
            total *= w
        slope += tl.sum(product)
        level += tl.sum(total)
    slope, level = slope / size / length, level / size / length
    for first in range(0, size, PLANES):
        for start in range(0, length, POSITIONS):
            plane, at, inside = _tile(first, start, size, length, PLANES, POSITIONS)
            normal = (tl.load(x_ptr + base + at, inside, other=0).to(kind) - mean) * rstd
            u = tl.load(g_ptr + base + at, inside, other=0).to(kind)
            if w_ptr is not None:
                u *= tl.load(w_ptr + channel + plane, plane < size, other=0).to(kind)
            dx = (u - level - normal * slope) * rstd
            tl.store(dx_ptr + base + at, dx.to(dx_ptr.dtype.element_ty), inside)


def cut(size: int, length: int, double: bool) -> dict[str, Any]:
    """A kernel's constants, for groups of `size` planes of `length` numbers."""
    tile = TILE // (1 + double)
    positions = min(tile, next_power_of_2(length))
    planes = min(tile // positions, next_power_of_2(size))
    warps = min(8, max(1, planes * positions * (1 + double) // 512))
    return {"DOUBLE": double, "PLANES": planes, "POSITIONS": positions, "num_warps": warps}


@forward.version("triton")
def _forward_triton(x, weight, bias, groups, eps):
    if not x.size:
        return forward.plain(x)(x, weight, bias, groups, eps)
    x, weight, bias = map(contiguous, (x, weight, bias))
    (_, c, length), rows = x.shape, len(x) * groups
    constants = cut(c // groups, length, x.dtype == xp.float64)
    kind = xp.float64 if constants["DOUBLE"] else xp.float32
    y, stats = xp.empty_like(x), xp.empty_like(x, kind, shape=(2, rows))
    _forward_kernel[(rows,)](
        x, weight, bias, y, stats, rows, groups, c // groups, length, eps=float(eps), **constants
    )
    return y, stats


@backward.version("triton")
def _backward_triton(g, x, weight, groups, stats):
    if not x.size:
        return backward.plain(x)(g, x, weight, groups, stats)
    g, x, weight = map(contiguous, (g, x, weight))
    (n, c, length), rows = x.shape, len(x) * groups
    dx, sums = xp.empty_like(x, shape=g.shape), xp.empty_like(stats, shape=(2, n, c))
    constants = cut(c // groups, length, x.dtype == xp.float64)
    _backward_kernel[(rows,)](
        g, x, weight, stats, dx, sums, rows, groups, c // groups, length, **constants
    )
    return dx, *added_up(sums, x)
