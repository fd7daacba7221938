"""RMS norm (Zhang & Sennrich 2019) over the last axis, a tile of rows at a time: see layer_norm.

The ladder and the memory traffic are layer_norm's too, but no mean and no bias; in Triton one
number a row is kept.
"""

from __future__ import annotations

from . import arrays as xp
from . import norm_triton
from .dispatch import dispatched
from .tiles import added, row_tiles, spreading


def naive(x, weight, eps):
    """The formula: x (n, h), weight (h,)."""
    return x / xp.sqrt((x * x).mean(1, keepdims=True) + eps) * weight


@dispatched
def forward(x: xp.ndarray, weight: xp.ndarray | None, eps: float) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, h) -> y (n, h), and for backward 1/root of the mean square, beside zeros (n, 2).

    y = x · (r wᵀ): a pass for the sums, one that spreads the factors, one product. BLAS has no
    fast product of a column and a row alone, hence the zeros. Temporary memory: none but vectors.
    """
    n, h = x.shape
    y, scale, affine = xp.empty_like(x), *(xp.zeros_like(x, shape=s) for s in ((n, 2), (2, h)))
    affine[0] = 1 if weight is None else weight
    for rows in row_tiles(n, h):
        xt = x[rows]
        xp.divide(1, xp.sqrt(xp.vecdot(xt, xt) / max(h, 1) + eps), out=scale[rows, 0])
        yt = xp.matmul(scale[rows], affine, out=y[rows])
        yt *= xt
    return y, scale


@dispatched
def backward(
    g: xp.ndarray, x: xp.ndarray, weight: xp.ndarray | None, scale: xp.ndarray
) -> tuple[xp.ndarray, xp.ndarray]:
    """Cotangents of x (n, h), in g's shape if that is another, and of weight (h,).

    With u = g · w and s = Σ u · x over a row, dx = r u - (r² / h · r s) x. Six passes: g · x and
    its sums over rows and columns; u and x, side by side; dx from both. Temporary memory: two tiles
    of ROW_ELEMENTS, and vectors.
    """
    n, h = x.shape
    dx, dw, factors = xp.empty_like(x, shape=g.shape), xp.zeros_like(x, shape=h), scale.copy()
    g, out, r = g.reshape(n, h), dx.reshape(n, h), scale[:, 0]
    weight, slope = xp.ones_like(x, shape=h) if weight is None else weight, r * r / -max(h, 1)
    parts = xp.empty_like(x, shape=(2, next(row_tiles(n, h), slice(0, 0)).stop, h))
    for rows in row_tiles(n, h):
        gt, tile = g[rows], parts[:, : rows.stop - rows.start]
        u, xt = tile
        xp.copyto(xt, x[rows])
        gx = xp.multiply(gt, xt, out=u)
        dw += xp.matmul(r[rows], gx)
        xp.multiply(slope[rows], r[rows] * xp.matmul(gx, weight), out=factors[rows, 1])
        with spreading(h):
            xp.multiply(gt, weight, out=u)
        added(factors[rows], tile, out[rows])
    return dx, dw


@forward.version("naive")
def _forward_naive(x, weight, eps):
    rstd = 1 / xp.sqrt((x * x).mean(1, keepdims=True) + eps)
    return x * rstd if weight is None else x * rstd * weight, rstd


@backward.version("naive")
def _backward_naive(g, x, weight, rstd):
    normal, shape, g = x * rstd, g.shape, g.reshape(x.shape)
    u = g if weight is None else g * weight
    dx = (u - normal * (u * normal).mean(1, keepdims=True)) * rstd
    return dx.reshape(shape), (g * normal).sum(0)


# The same on a GPU


@forward.version("triton")
def _forward_triton(x, weight, eps):
    if not x.size:
        return forward.plain(x)(x, weight, eps)
    return norm_triton.forward(x, weight, None, eps, centred=False)


@backward.version("triton")
def _backward_triton(g, x, weight, rstd):
    if not x.size:
        return backward.plain(g)(g, x, weight, rstd)
    dx, (dw,) = norm_triton.backward(g, x, weight, rstd, centred=False)
    return dx, dw
