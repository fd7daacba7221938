"""Batch norm (Ioffe & Szegedy 2015), a few channels at a time while they are in cache."""

from collections.abc import Iterator

from . import arrays as xp
from .dispatch import dispatched
from .half_precision import wide
from .tiles import row_tiles, spreading


def naive(x, weight, bias, eps=1e-5):
    """The formula: x (n, c, l), weight and bias (c,)."""
    mean, variance = x.mean((0, 2), keepdims=True), x.var((0, 2), keepdims=True)
    return (x - mean) / xp.sqrt(variance + eps) * weight[:, None] + bias[:, None]


def _tiles(*arrays: xp.ndarray) -> Iterator[tuple]:
    """(channels, a packed copy of each array's part) of arrays (n, c, l), a tile of channels.

    The same channel of all samples lies at a stride that is often a power of two, where the
    parts push each other out of the cache: passes over a packed copy take a third of the time.
    """
    n, c, length = arrays[0].shape
    with spreading(length):
        for channels in row_tiles(c, n * length):
            yield channels, *(xp.array(a[:, channels], order="C") for a in arrays)


@dispatched
def moments(x: xp.ndarray) -> tuple[xp.ndarray, xp.ndarray]:
    """Mean and variance (divided by the count) of each channel: (n, c, l) -> (c,) twice.

    Temporary memory: two tiles of ROW_ELEMENTS, or channels if one is larger.
    """
    mean, variance = (xp.empty_like(x, shape=x.shape[1]) for _ in range(2))
    for channels, xt in _tiles(x):
        xt.mean((0, 2), out=mean[channels])
        xt -= mean[channels, None]
        xp.square(xt, out=xt).mean((0, 2), out=variance[channels])
    return mean, variance


def follow(running: xp.ndarray, new: xp.ndarray, momentum: float) -> None:
    """running += momentum · (new - running), rounded once where it has 16 bits."""
    old = wide(running)
    running[...] = old + momentum * (new - old)


@dispatched
def forward(
    x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray,
    weight: xp.ndarray | None, bias: xp.ndarray | None,
) -> xp.ndarray:  # fmt: skip
    """(x - mean) · rstd · weight + bias; x (n, c, l), all others (c,).

    Temporary memory: as that of moments.
    """
    y = xp.empty_like(x, order="C")
    scale = rstd if weight is None else rstd * weight
    for channels, xt in _tiles(x):
        xt -= mean[channels, None]
        xt *= scale[channels, None]
        if bias is not None:
            xt += bias[channels, None]
        y[:, channels] = xt
    return y


@dispatched
def backward(
    g: xp.ndarray, x: xp.ndarray, mean: xp.ndarray, rstd: xp.ndarray,
    weight: xp.ndarray | None, of_batch: bool,
) -> tuple[xp.ndarray, xp.ndarray, xp.ndarray]:  # fmt: skip
    """Cotangents of x (n, c, l), weight (c,) and bias (c,).

    of_batch: mean and rstd were the batch's own, so they move with x. Temporary memory: twice that
    of moments.
    """
    dx, dw, db = xp.empty_like(x, order="C"), xp.empty_like(rstd), xp.empty_like(rstd)
    count, scale = x.shape[0] * x.shape[2], rstd if weight is None else rstd * weight
    for channels, gt, xt in _tiles(g, x):
        xt -= mean[channels, None]
        xt *= rstd[channels, None]
        xp.einsum("ncl,ncl->c", gt, xt, out=dw[channels])
        gt.sum((0, 2), out=db[channels])
        if of_batch:
            xt *= (dw[channels] / count)[:, None]
            xt += (db[channels] / count)[:, None]
            gt -= xt
        gt *= scale[channels, None]
        dx[:, channels] = gt
    return dx, dw, db


@moments.version("naive")
def _moments_naive(x):
    return x.mean((0, 2)), x.var((0, 2))


@forward.version("naive")
def _forward_naive(x, mean, rstd, weight, bias):
    y = (x - mean[:, None]) * (rstd if weight is None else rstd * weight)[:, None]
    return y if bias is None else y + bias[:, None]


@backward.version("naive")
def _backward_naive(g, x, mean, rstd, weight, of_batch):
    normal, count = (x - mean[:, None]) * rstd[:, None], x.shape[0] * x.shape[2]
    dw, db = (g * normal).sum((0, 2)), g.sum((0, 2))
    if of_batch:
        g = g - (normal * dw[:, None] + db[:, None]) / count
    return g * (rstd if weight is None else rstd * weight)[:, None], dw, db
