"""Steps of SGD, Adagrad, RMSprop and Lion: one pass over memory, in tiles that stay in cache.

Each updates parameters p, and what it remembers of earlier gradients, in place, from the gradient
g; arrays are contiguous and of one shape, and g is never written to. Temporary memory: two tiles of
ELEMENTS, for Lion half a one more.
"""

from collections.abc import Iterator

from . import arrays as xp
from .dispatch import dispatched
from .tiles import flat_tiles

ELEMENTS = 1 << 18  # in float32 1 MiB an array: few calls, long streams, all still in L3
Tile = xp.ndarray


def decayed(g: Tile, p: Tile, weight_decay: float, out: Tile) -> Tile:
    """The gradient of the loss with weight_decay/2 · |p|² added: g itself if that is nothing."""
    if not weight_decay:
        return g
    xp.multiply(p, weight_decay, out=out)
    out += g
    return out


def scratched(p: Tile, g: Tile, *memory: Tile | None) -> Iterator[tuple[Tile, ...]]:
    """Tiles of p, g and each memory, and two scratch tiles; p stands in for a memory of None."""
    s, t = xp.empty_like(p, shape=(2, min(p.size, ELEMENTS)))
    for tiles in flat_tiles(p, g, *(p if m is None else m for m in memory), elements=ELEMENTS):
        n = tiles[0].size
        yield *tiles, s[:n], t[:n]


def naive_sgd(p, g, b, *, lr, momentum, dampening, nesterov, weight_decay, first):
    """The formula, one temporary an operation; returns p, b."""
    g = g + weight_decay * p
    b = g if first else momentum * b + (1 - dampening) * g
    return p - lr * (g + momentum * b if nesterov else b if momentum else g), b


@dispatched
def sgd_(
    p: Tile, g: Tile, b: Tile | None, *, lr: float, momentum: float, dampening: float,
    nesterov: bool, weight_decay: float, first: bool,
) -> None:  # fmt: skip
    """b is the momentum buffer, filled by the first step; None without momentum."""
    for pt, gt, bt, s, t in scratched(p, g, b):
        d = decayed(gt, pt, weight_decay, out=s)
        if b is not None:
            if first:
                bt[...] = d
            else:
                bt *= momentum
                bt += xp.multiply(d, 1 - dampening, out=t) if dampening else d
            d = xp.add(xp.multiply(bt, momentum, out=t), d, out=t) if nesterov else bt
        pt -= xp.multiply(d, lr, out=t)


def naive_adagrad(p, g, total, *, lr, eps, weight_decay):
    """The formula; returns p, total."""
    g = g + weight_decay * p
    total = total + g * g
    return p - lr * g / (xp.sqrt(total) + eps), total


@dispatched
def adagrad_(
    p: Tile, g: Tile, total: Tile, *, lr: float, eps: float, weight_decay: float
) -> None:  # fmt: skip
    """total is the sum of all squared gradients."""
    for pt, gt, vt, s, t in scratched(p, g, total):
        d = decayed(gt, pt, weight_decay, out=s)
        vt += xp.multiply(d, d, out=t)
        xp.sqrt(vt, out=t)
        t += eps
        xp.divide(d, t, out=t)
        t *= lr
        pt -= t


def naive_rmsprop(p, g, v, a, b, *, lr, alpha, eps, weight_decay, momentum):
    """The formula; returns p, v, a, b."""
    g = g + weight_decay * p
    v = alpha * v + (1 - alpha) * g * g
    a = None if a is None else alpha * a + (1 - alpha) * g
    d = g / (xp.sqrt(v if a is None else v - a * a) + eps)
    b = None if b is None else momentum * b + d
    return p - lr * (d if b is None else b), v, a, b


@dispatched
def rmsprop_(
    p: Tile, g: Tile, v: Tile, a: Tile | None, b: Tile | None, *, lr: float, alpha: float,
    eps: float, weight_decay: float, momentum: float,
) -> None:  # fmt: skip
    """v averages g², a averages g (None if not centred), b is momentum's (None without)."""
    for pt, gt, vt, at, bt, s, t in scratched(p, g, v, a, b):
        d = decayed(gt, pt, weight_decay, out=s)
        xp.multiply(d, d, out=t)
        t *= 1 - alpha
        vt *= alpha
        vt += t
        root = vt
        if a is not None:
            at *= alpha
            at += xp.multiply(d, 1 - alpha, out=t)
            xp.multiply(at, at, out=t)
            root = xp.subtract(vt, t, out=t)
        xp.sqrt(root, out=t)
        t += eps
        xp.divide(d, t, out=t)
        if b is not None:
            bt *= momentum
            bt += t
            xp.copyto(t, bt)
        t *= lr
        pt -= t


def naive_lion(p, g, m, *, lr, beta1, beta2, weight_decay):
    """The formula; returns p, m."""
    c = xp.sign(beta1 * m + (1 - beta1) * g)
    return p - lr * (c + weight_decay * p), beta2 * m + (1 - beta2) * g


@dispatched
def lion_(
    p: Tile, g: Tile, m: Tile, *, lr: float, beta1: float, beta2: float, weight_decay: float
) -> None:  # fmt: skip
    """m averages g; the step is a sign, of one size for every parameter (none for nan)."""
    for pt, gt, mt, s, t in scratched(p, g, m):
        xp.multiply(mt, beta1, out=t)
        t += xp.multiply(gt, 1 - beta1, out=s)
        xp.subtract((t > 0).view("i1"), (t < 0).view("i1"), out=t)  # np.sign branches: 5 × slower
        t *= lr
        if weight_decay:
            pt *= 1 - lr * weight_decay
        pt -= t
        mt *= beta2
        mt += xp.multiply(gt, 1 - beta2, out=s)


# The formulas as versions: what they return goes where it belongs


@sgd_.version("naive")
def _sgd_naive(p, g, b, **options):
    _put((p, b), naive_sgd(p, g, 0 if b is None else b, **options))


@adagrad_.version("naive")
def _adagrad_naive(p, g, total, **options):
    _put((p, total), naive_adagrad(p, g, total, **options))


@rmsprop_.version("naive")
def _rmsprop_naive(p, g, *memory, **options):
    _put((p, *memory), naive_rmsprop(p, g, *memory, **options))


@lion_.version("naive")
def _lion_naive(p, g, m, **options):
    _put((p, m), naive_lion(p, g, m, **options))


def _put(arrays, values):
    for array, value in zip(arrays, values, strict=True):
        if array is not None:
            array[...] = value
