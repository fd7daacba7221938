"""Resampling along the last axes: the element nearest to each place, or a line between two of them.

Forward reads neighbours by their index. Backward adds cotangents to the neighbours that were read.
This is a product with the transposed matrix, computed in blocks, because all its nonzero entries
lie near the diagonal. In backward a NaN or an infinity spreads over its block.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

from . import arrays as xp
from .dispatch import dispatched

BLOCK = 64  # places along an axis in one product of backward


class Taps(NamedTuple):
    """Along an axis of `size`: y[i] = (1 - weight[i])·x[low[i]] + weight[i]·x[high[i]].

    Without weights y[i] = x[low[i]]. Both indices grow with i, and are NumPy arrays.
    """

    size: int
    low: Any
    high: Any = None
    weight: Any = None

    def blocks(self, length: int) -> Iterator[tuple[slice, slice, Any]]:
        """Blocks of `length` places: (the places, the elements that they read, their matrix)."""
        for start in range(0, len(self.low), length):
            part = slice(start, start + length)
            low, first = self.low[part], int(self.low[start])
            last = int((low if self.high is None else self.high[part])[-1])
            with xp.beside():  # on the host, wherever the arrays are
                row = xp.arange(len(low))
                matrix = xp.zeros((len(low), last + 1 - first), xp.float64)
                matrix[row, low - first] = 1 if self.weight is None else 1 - self.weight[part]
                if self.weight is not None:
                    matrix[row, self.high[part] - first] += self.weight[part]
            yield part, slice(first, last + 1), matrix


def nearest(n: int, m: int, scale: float | None, dtype: Any, exact: bool) -> Taps:
    """m places over n elements: i·scale rounded down, as PyTorch computes it in `dtype`.

    `exact`: m = n takes every element once, and m = 2n twice, whatever the scale.
    """
    i = xp.arange(m)
    if exact and m in (n, 2 * n):
        return Taps(n, i // (m // n))
    step = dtype.type(n) / dtype.type(m) if scale is None else dtype.type(1 / scale)
    return Taps(n, xp.minimum((i.astype(dtype) * step).astype(xp.int64), n - 1))


def linear(n: int, m: int, scale: float | None, dtype: Any, align_corners: bool) -> Taps:
    """m places among n elements: from the first to the last, or at the centres of m equal parts."""
    i = xp.arange(m)
    if n == m:
        return Taps(n, i, i, xp.zeros(m, dtype))
    if align_corners:
        at = i.astype(dtype) * (dtype.type(n - 1) / dtype.type(max(m - 1, 1)))
    else:
        step = dtype.type(n) / dtype.type(m) if scale is None else dtype.type(1 / scale)
        at = xp.maximum(step * (i.astype(dtype) + dtype.type(0.5)) - dtype.type(0.5), 0)
    low = xp.minimum(at.astype(xp.int64), n - 1)
    return Taps(n, low, xp.minimum(low + 1, n - 1), xp.clip(at - low.astype(dtype), 0, 1))


@dispatched
def forward(x: xp.ndarray, taps: tuple[Taps, ...]) -> xp.ndarray:
    """x (..., *sizes) -> (..., *places), last axis first, so that the other axes move whole rows.

    Temporary memory: as much as the result.
    """
    for back, one in enumerate(reversed(taps), 1):
        x = _read(x, -back, one)
    return x


def _read(x: xp.ndarray, axis: int, taps: Taps) -> xp.ndarray:
    y = x.take(xp.at_home_of(x, taps.low), axis)
    if taps.weight is None:
        return y
    w = xp.at_home_of(x, taps.weight.reshape(-1, *(1,) * (-1 - axis)))
    other = x.take(xp.at_home_of(x, taps.high), axis)
    other *= w
    y *= 1 - w
    y += other
    return y


@dispatched
def backward(g: xp.ndarray, taps: tuple[Taps, ...]) -> xp.ndarray:
    """g (..., *places) -> (..., *sizes), the transpose of forward.

    Temporary memory: g resampled along all axes but the last, and products with one block.
    """
    for back, one in reversed(list(enumerate(reversed(taps), 1))):
        g = _add_up(g, g.ndim - back, one)
    return g


def _add_up(g: xp.ndarray, axis: int, taps: Taps) -> xp.ndarray:
    before, after = g.shape[:axis], g.shape[axis + 1 :]
    rows, rest = math.prod(before), math.prod(after)
    g = g.reshape(rows, len(taps.low), rest)
    dx = xp.zeros((rows, taps.size, rest), g.dtype)
    for places, elements, matrix in taps.blocks(BLOCK):
        matrix = xp.at_home_of(g, matrix.astype(g.dtype))
        if rest == 1:  # one product of two matrices
            dx[:, elements, 0] += xp.matmul(g[:, places, 0], matrix)
        else:
            dx[:, elements] += xp.matmul(matrix.T, g[:, places])
    return dx.reshape(*before, taps.size, *after)


def _matrix(x: xp.ndarray, taps: Taps) -> xp.ndarray:
    with xp.beside(x):
        whole = xp.zeros((len(taps.low), taps.size), x.dtype)
    for places, elements, matrix in taps.blocks(len(whole)):
        whole[places, elements] = xp.at_home_of(x, matrix)
    return whole


def _apply(matrix: xp.ndarray, x: xp.ndarray, axis: int) -> xp.ndarray:
    return xp.moveaxis(xp.tensordot(matrix, x, (1, axis)), 0, axis)


@forward.version("naive")
def naive(x: xp.ndarray, taps: tuple[Taps, ...]) -> xp.ndarray:
    """A product with a whole matrix for each axis."""
    for axis, one in enumerate(taps, x.ndim - len(taps)):
        x = _apply(_matrix(x, one), x, axis)
    return x


@backward.version("naive")
def _backward_naive(g, taps):
    for axis, one in enumerate(taps, g.ndim - len(taps)):
        g = _apply(_matrix(g, one).T, g, axis)
    return g
