"""Layer norm (Ba et al. 2016) over the last axis, a tile of rows at a time.

NumPy multiplies a tile by a column, or by a row, in an inner loop a row: twice the time of a tile
by a tile, unless rows are LONG. BLAS does better: products of (n, 2) and (2, h) spread factors of
rows and of columns over a tile, products with vectors are sums, and a row of three numbers times
three rows adds them.

The ladder: naive, an operation at a time; in NumPy, all passes over a tile of rows in cache; in
Triton, over rows in registers. Memory traffic there: forward reads x and writes y; backward reads
g and x, writes dx, and sums the cotangents of weight and bias over each program's rows, which a
second kernel adds up in a fixed order. Rows too wide for registers are read twice forward, and
three times backward. Two numbers a row are kept, the mean and 1/deviation.
"""

from __future__ import annotations

from . import arrays as xp
from . import norm_triton
from .dispatch import dispatched
from .tiles import added, row_tiles, spreading

NEAR = 4.0  # mean² over variance + eps: up to here Σ x² costs the variance two bits
LONG = 1024  # numbers in a row: BLAS is slow at rows as far apart as pages of memory are


def naive(x, weight, bias, eps=1e-5):
    """The formula, one temporary an operation."""
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / xp.sqrt(variance + eps) * weight + bias


@dispatched
def forward(
    x: xp.ndarray, weight: xp.ndarray | None, bias: xp.ndarray | None, eps: float
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """x (n, h) -> y (n, h), and for backward x itself, less its means if need be, and (2, n, 2).

    With r = 1/deviation and m = -mean · r, y = x · (r wᵀ) + (m wᵀ + 1 bᵀ). Over x and a tile that
    is two passes for the sums, two that spread factors, and two of arithmetic; of LONG rows two and
    four. What is kept are the coefficients of w and b: r, 0 and m, 1.

    Σ x² / h - mean² needs no pass of its own, but of a mean far over the deviation it leaves no
    digits: then all is done again with the means taken off. Temporary memory: a tile of
    ROW_ELEMENTS, and vectors.
    """
    stats, y = xp.zeros_like(x, shape=(2, len(x), 2)), xp.empty_like(x)
    affine, share = xp.zeros_like(x, shape=(2, x.shape[1])), xp.empty_like(x, shape=x.shape[1])
    affine[0] = 1 if weight is None else weight
    affine[1] = 0 if bias is None else bias
    share[...] = 1 / max(x.shape[1], 1)
    with xp.errstate(over="ignore", invalid="ignore"):
        _normalise(x, share, affine, eps, y, stats)
        near = (xp.square(stats[1, :, 0]) <= NEAR).all()
    if not near:
        x = x - xp.matmul(x, share)[:, None]
        _normalise(x, xp.zeros_like(share), affine, eps, y, stats)
    return y, x, stats


def _normalise(x, share, affine, eps, y, stats):
    """Fills y and stats; share (h,) times a row is its mean, 0 if that is known."""
    (n, h), (scale, shift) = x.shape, stats
    shift[:, 1] = 1
    for rows in row_tiles(n, h):
        xt = x[rows]
        mean = xp.matmul(xt, share)
        variance = xp.vecdot(xt, xt) / max(h, 1) - mean * mean
        r = xp.divide(1, xp.sqrt(variance + eps), out=scale[rows, 0])
        xp.multiply(-mean, r, out=shift[rows, 0])
        _affine(xt, scale[rows], shift[rows], affine, y[rows])


def _affine(x, scale, shift, affine, y):
    """y = x · (scale affine) + shift affine of a tile, (n, 2) (2, h): products, or row by row."""
    if x.shape[1] >= LONG:
        with spreading(x.shape[1]):
            xp.multiply(x, scale[:, :1], out=y)
            y += shift[:, :1]
            y *= affine[0]
            y += affine[1]
    else:
        xp.matmul(scale, affine, out=y)
        y *= x
        y += xp.matmul(shift, affine)


@dispatched
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, stats: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:
    """Cotangents of x (n, h), in g's shape if that is another, and of weight and bias (h,).

    With u = g · w and normal = r x + m, dx = r (u - mean(u) - normal · mean(u · normal)), which is
    a number times u, one times x and one times 1 in each row. Over g, x and a tile that is four
    passes for sums, of g twice and of g · x twice; three for g · x, u and x beside it; one for dx.
    Temporary memory: three tiles of ROW_ELEMENTS, and vectors.
    """
    n, h = x.shape
    dx, daffine = xp.empty_like(x, shape=g.shape), xp.zeros_like(x, shape=(2, h))
    g, out, (scale, shift) = g.reshape(n, h), dx.reshape(n, h), stats
    weight = xp.ones_like(x, shape=h) if weight is None else weight
    parts = xp.empty_like(x, shape=(3, next(row_tiles(n, h), slice(0, 0)).stop, h))
    parts[2] = 1
    for rows in row_tiles(n, h):
        gt, tile, r, m = g[rows], parts[:, : rows.stop - rows.start], scale[rows, 0], shift[rows, 0]
        u, xt = tile[:2]
        daffine += xp.matmul(shift[rows].T, gt)
        gw = xp.matmul(gt, weight)
        xp.copyto(xt, x[rows])
        gx = xp.multiply(gt, xt, out=u)
        daffine[0] += xp.matmul(r, gx)
        factors = _factors(r, m, gw, xp.matmul(gx, weight), max(h, 1))
        with spreading(h):
            xp.multiply(gt, weight, out=u)
        added(factors, tile, out[rows])
    return dx, *daffine


def _factors(r: xp.ndarray, m: xp.ndarray, gw: xp.ndarray, gxw: xp.ndarray, h: int) -> xp.ndarray:
    """What u, x and 1 are multiplied by in each row, (n, 3), from Σ u and Σ u · x over it, (n,)."""
    factors, share = xp.empty_like(r, shape=(len(r), 3)), r / -h
    slope = share * (r * gxw + m * gw)  # -r · mean(u · normal)
    factors[:, 0] = r
    xp.multiply(slope, r, out=factors[:, 1])
    xp.add(slope * m, share * gw, out=factors[:, 2])
    return factors


@forward.version("naive")
def _forward_naive(x, weight, bias, eps):
    rstd = 1 / xp.sqrt(x.var(1, keepdims=True) + eps)
    normal = (x - x.mean(1, keepdims=True)) * rstd
    y = normal if weight is None else normal * weight
    return y if bias is None else y + bias, normal, rstd


@backward.version("naive")
def _backward_naive(g, normal, weight, rstd):
    shape, g = g.shape, g.reshape(normal.shape)
    u = g if weight is None else g * weight
    dx = u - u.mean(1, keepdims=True) - normal * (u * normal).mean(1, keepdims=True)
    return (dx * rstd).reshape(shape), (g * normal).sum(0), g.sum(0)


# The same on a GPU


@forward.version("triton")
def _forward_triton(x, weight, bias, eps):
    if not x.size:
        return forward.plain(x)(x, weight, bias, eps)
    y, stats = norm_triton.forward(x, weight, bias, eps, centred=True)
    return y, x, stats


@backward.version("triton")
def _backward_triton(g, x, weight, stats):
    if not x.size:
        return backward.plain(g)(g, x, weight, stats)
    dx, sums = norm_triton.backward(g, x, weight, stats, centred=True)
    return dx, *sums
