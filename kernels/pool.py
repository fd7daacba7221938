"""Pooling: the largest by strided views of whole planes, the mean as a product with two matrices.

A mean over windows is linear, and separates into rows and columns: (down) x (across)ᵀ. In these
products a NaN or an infinity is multiplied by 0 and spoils all windows of its row and column. If
that happens, NumPy's kernel finds the windows that really contain one. (A GPU does not: it would
have to wait for the answer.)
"""

from . import arrays as xp
from .dispatch import dispatched
from .tiles import row_tiles, without
from .windows import Windows, fit

MORE = 4  # times the usual tile: taps are many calls, so each must do more


def naive(x, win: Windows, size, reduce, fill):
    """The formula, one output pixel at a time: x (p, h, w) -> (p, *size)."""
    (sh, sw), (dh, dw), (rh, rw) = win.stride, win.dilation, win.reach()
    whole, y = _padded(x, win, size, fill), xp.empty((len(x), *size), x.dtype)
    for i, j in xp.ndindex(*size):
        window = whole[:, i * sh : i * sh + rh : dh, j * sw : j * sw + rw : dw]
        y[:, i, j] = reduce(window, (1, 2))
    return y


def _taps(win: Windows, size: tuple) -> list[tuple[int, tuple]]:
    """(number, index) for every place in the window: what all windows see there."""
    return [(number, at) for number, (_, at) in enumerate(win.taps(size))]


def _padded(x: xp.ndarray, win: Windows, size: tuple, fill: float) -> xp.ndarray:
    """Planes (p, h, w) as large as the windows reach; x itself where nothing is added."""
    parts = zip(x.shape[1:], win.padding, win.reach(), win.stride, size)
    h, w = (max(n + sum(pad), s * (m - 1) + reach) for n, pad, reach, s, m in parts)
    if (h, w) == x.shape[1:]:
        return x
    whole = xp.full_like(x, fill, order="C", shape=(len(x), h, w))
    _inside(whole, win, x.shape)[...] = x
    return whole


def _inside(whole: xp.ndarray, win: Windows, shape: tuple) -> xp.ndarray:
    (top, _), (left, _) = win.padding
    return whole[:, top : top + shape[1], left : left + shape[2]]


@dispatched
def max_forward(x: xp.ndarray, win: Windows, size: tuple) -> tuple[xp.ndarray, xp.ndarray]:
    """x (n, c, h, w) -> the largest (n, c, *size), and the number of its first place (planes).

    Temporary memory: some planes, MORE tiles of ROW_ELEMENTS, with their padding, and what a place
    in the window sees of them twice.
    """
    shape, x = x.shape, x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    y = xp.empty((len(x), *size), x.dtype)
    which = xp.zeros(y.shape, xp.min_scalar_type(win.kernel[0] * win.kernel[1]))
    taps = _taps(win, size)
    for planes in row_tiles(len(x), x.shape[1] * x.shape[2] // MORE):
        _largest(_padded(x[planes], win, size, _least(x.dtype)), taps, y[planes], which[planes])
    return y.reshape(*shape[:2], *size), which


def _least(dtype: xp.dtype) -> float:
    """The smallest number of a dtype, which pads the borders."""
    return int(xp.iinfo(dtype).min) if dtype.kind in "iu" else -xp.inf


def _largest(whole, taps, y, which):
    """The maxima of one tile of padded planes, and the tap that each came from."""
    tap, newer = xp.empty_like(y), xp.empty(y.shape, xp.bool_)
    y[...] = whole[taps[0][1]]
    for number, at in taps[1:]:
        tap[...] = whole[at]  # read twice: packed, both are faster
        xp.greater(tap, y, out=newer)
        last = xp.multiply(newer, which.dtype.type(number), dtype=which.dtype)
        xp.maximum(which, last, out=which)  # the last of the newer ones
        xp.maximum(y, tap, out=y)
    if y.dtype.kind in "iu":
        return
    if xp.on_gpu(y) or xp.isnan(y.max(initial=-xp.inf)):  # a NaN is never greater: it takes over
        for number, at in taps:
            xp.copyto(which, number, where=xp.isnan(whole[at]))


@dispatched
def max_backward(g: xp.ndarray, which: xp.ndarray, shape: tuple, win: Windows) -> xp.ndarray:
    """g (n, c, *size) -> the cotangent of x, of `shape`: each goes to what was largest.

    Temporary memory: as forward's.
    """
    g, size, taps = g.reshape(which.shape), which.shape[1:], _taps(win, which.shape[1:])
    apart = win.dilation == (1, 1) and all(s >= k for s, k in zip(win.stride, win.kernel))
    covered = tuple(n * k for n, k in zip(size, win.kernel)) == tuple(shape[2:])
    exact = apart and covered and win.stride == win.kernel and not xp.any(win.padding)
    dx = (xp.empty if exact else xp.zeros)((len(g), *shape[2:]), g.dtype)
    for planes in row_tiles(len(g), shape[2] * shape[3] // MORE):
        whole = _handed_out(
            g[planes], which[planes], _padded(dx[planes], win, size, 0), taps, apart
        )
        if whole.shape[1:] != dx.shape[1:]:
            dx[planes] = _inside(whole, win, dx.shape)
        del whole  # the next tile's takes its place
    return dx.reshape(shape)


def _handed_out(g, which, whole, taps, apart):
    """Adds one tile of g to padded planes, there where it belongs."""
    part = xp.empty_like(g)
    for number, at in taps:
        without(which != number, g, part)
        if apart:
            whole[at] = part
        else:
            whole[at] += part
    return whole


@max_forward.version("naive")
def _max_naive(x, win, size):
    shape, x = x.shape, x.reshape(x.shape[0] * x.shape[1], *x.shape[2:])
    whole, ((_, first), *taps) = _padded(x, win, size, _least(x.dtype)), _taps(win, size)
    y, which = whole[first], xp.zeros_like(x, shape=(len(x), *size), dtype=xp.int64)
    for number, at in taps:
        which = xp.where((whole[at] > y) | xp.isnan(whole[at]), number, which)
        y = xp.maximum(y, whole[at])
    return y.reshape(*shape[:2], *size), which


@max_backward.version("naive")
def _max_backward_naive(g, which, shape, win):
    g, size = g.reshape(which.shape), which.shape[1:]
    whole = _padded(xp.zeros_like(g, shape=(len(g), *shape[2:])), win, size, 0)
    for number, at in _taps(win, size):
        whole[at] += xp.where(which == number, g, 0)
    return _inside(whole, win, (len(g), *shape[2:])).reshape(shape)


def mean_matrix(n: int, starts: xp.ndarray, stops: xp.ndarray, sizes: xp.ndarray, dtype):
    """(windows, n): row i has 1/sizes[i] from starts[i] to stops[i], and 0 elsewhere."""
    place = xp.arange(n)
    inside = (place >= starts[:, None]) & (place < stops[:, None])
    return (inside / sizes[:, None]).astype(dtype)


def sliding(n: int, axis: int, win: Windows, ceil_mode: bool, include_pad: bool, divisor, dtype):
    """The matrix of sliding means over an axis of n; a last window may leave the padding."""
    low, high = win.padding[axis]
    count = fit(n, win.kernel[axis], win.stride[axis], (low, high), ceil_mode)
    starts = xp.arange(count) * win.stride[axis] - low
    stops = xp.minimum(starts + win.kernel[axis], n + high)
    seen = xp.minimum(stops, n) - xp.maximum(starts, 0)
    sizes = xp.full(len(starts), divisor) if divisor else stops - starts if include_pad else seen
    return mean_matrix(n, starts, stops, sizes, dtype)


def adaptive(n: int, count: int | None, dtype):
    """The matrix of `count` (or n) means over windows that cover an axis of n evenly."""
    count = n if count is None else count
    i = xp.arange(count)
    starts, stops = i * n // max(count, 1), -((i + 1) * -n // max(count, 1))
    return mean_matrix(n, starts, stops, stops - starts, dtype)


def mean(x: xp.ndarray, down: xp.ndarray, across: xp.ndarray) -> xp.ndarray:
    """x (n, c, h, w), down (ho, h), across (wo, w) -> down x acrossᵀ (n, c, ho, wo).

    Temporary memory: x acrossᵀ (n, c, h, wo).
    """
    down, across = xp.at_home_of(x, down), xp.at_home_of(x, across)
    y = _product(x, down, across)
    return y if xp.on_gpu(y) or xp.isfinite(y).all() else _with_infinities(x, down, across)


def _with_infinities(x, down, across):
    inside = (down != 0).astype(x.dtype), (across != 0).astype(x.dtype)
    has = lambda found: _product(found.astype(x.dtype), *inside) > 0
    high, low = has(x == xp.inf), has(x == -xp.inf)
    y = _product(xp.where(xp.isfinite(x), x, 0), down, across)
    y[high], y[low] = xp.inf, -xp.inf
    y[has(xp.isnan(x)) | (high & low)] = xp.nan
    return y


def _product(x, down, across):
    n, c, h, w = x.shape
    narrow = xp.matmul(x.reshape(n * c * h, w), across.T).reshape(n, c, h, len(across))
    return xp.matmul(down, narrow)


def integer_mean(x: xp.ndarray, down: xp.ndarray, across: xp.ndarray) -> xp.ndarray:
    """The mean of integers: exact sums divided by their counts, rounded towards 0 as in C++."""
    inside = [(m != 0).astype(x.dtype) for m in (down, across)]
    counts = [xp.rint(i.sum(1) / m.sum(1)).astype(x.dtype) for i, m in zip(inside, (down, across))]
    total, count = mean(x, *inside), counts[0][:, None] * counts[1]
    return xp.abs(total) // xp.abs(count) * (xp.sign(total) * xp.sign(count))
