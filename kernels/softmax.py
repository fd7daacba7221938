"""Softmax and its logarithm along an axis, a tile of rows at a time."""

from collections.abc import Callable

import numpy as np

from .tiles import row_tiles

NEAR = 16.0  # rows whose maxima lie this close may share one shift: e¹⁶ costs no digits
SMALL = 20.0  # a first row's maximum of at most this size: worth trying without a shift
RANGE = 1e-10, 1e10  # sums in which no digit is lost, though summands below 1e-38 are 0


def naive(x: np.ndarray, axis: int = -1) -> np.ndarray:
    """The formula, one temporary a pass."""
    e = np.exp(x - x.max(axis, keepdims=True))
    return e / e.sum(axis, keepdims=True)


def shift(x: np.ndarray, out: np.ndarray) -> None:
    """out = x minus a maximum, so that exp(out) cannot overflow; x (n, v) is one tile.

    A number for the whole tile where its rows are alike, for a number a row costs twice as much
    (in float16, which ends at e⁻¹⁷, a number a row all the same).
    """
    top = x.max(1, keepdims=True, initial=-np.inf)
    highest = top.max(initial=-np.inf)
    near = x.itemsize > 2 and np.isfinite(highest) and top.min(initial=np.inf) >= highest - NEAR
    np.subtract(x, highest if near else top, out=out)


def exponentials(x: np.ndarray, out: np.ndarray) -> np.ndarray:
    """out = exp(x - a number a row), x (n, v) one tile; returns the sums of its rows (n,).

    Two passes where that number may be 0, which the sums tell: four with the maxima taken off.
    """
    if x.itemsize > 2 and abs(x[0].max(initial=-np.inf)) <= SMALL:
        with np.errstate(over="ignore", invalid="ignore"):
            sums = _sums(np.exp(x, out=out))
        if RANGE[0] <= sums.min() and sums.max() <= RANGE[1]:
            return sums
    shift(x, out)
    return _sums(np.exp(out, out=out))


def _by_rows(rows_of: Callable[..., None], axis: int, *arrays: np.ndarray) -> np.ndarray:
    """Fill a new array tile by tile: rows_of(*tiles, tile of it), `axis` being the rows'."""
    shape = arrays[0].shape or (1,)
    moved = [np.ascontiguousarray(a.reshape(shape).swapaxes(axis, -1)) for a in arrays]
    out = np.empty_like(moved[0])
    flat = [a.reshape(a.size // max(a.shape[-1], 1), a.shape[-1]) for a in (*moved, out)]
    for rows in row_tiles(*flat[0].shape):
        rows_of(*(a[rows] for a in flat))
    if arrays[0].ndim and axis in (-1, out.ndim - 1):
        return out  # no view: a gradient that nothing else holds need not be copied
    return out.swapaxes(axis, -1).reshape(arrays[0].shape)


def forward(x: np.ndarray, axis: int) -> np.ndarray:
    """exp(x) / sum(exp(x)) along an axis: three passes, five where a maximum is taken off."""
    return _by_rows(_softmax, axis, x)


def _softmax(x, y):
    y /= exponentials(x, y)[:, None]


def _sums(x: np.ndarray) -> np.ndarray:
    return np.matmul(x, np.ones_like(x, shape=x.shape[1]))


def backward(g: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """y · (g - Σ g·y), from the softmax y: three passes."""
    return _by_rows(_softmax_slope, axis, g, y)


def _softmax_slope(g, y, dx):
    np.subtract(g, np.vecdot(g, y)[:, None], out=dx)
    dx *= y


def log_forward(x: np.ndarray, axis: int) -> np.ndarray:
    """x - log(sum(exp(x))) along an axis."""
    return _by_rows(_log_softmax, axis, x)


def _log_softmax(x, y):
    shift(x, y)
    y -= np.log(_sums(np.exp(y)))[:, None]


def log_backward(g: np.ndarray, y: np.ndarray, axis: int) -> np.ndarray:
    """g - exp(y) · Σ g, from the log-softmax y."""
    return _by_rows(_log_softmax_slope, axis, g, y)


def _log_softmax_slope(g, y, dx):
    np.exp(y, out=dx)
    dx *= _sums(g)[:, None]
    np.subtract(g, dx, out=dx)
