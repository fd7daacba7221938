"""Padding with a number, or with the tensor's own elements: mirrored, repeated or wrapped round."""

from typing import Any

from ..kernels import arrays as xp
from ..tensor.dtypes import fitting
from .index import getitem
from .op import differentiable

# PyTorch's names, NumPy's
EDGES: dict[str, Any] = {"reflect": "reflect", "replicate": "edge", "circular": "wrap"}
MODES = ["constant", *EDGES]


@differentiable(autocast="fallthrough")
def _pad(x, inner, shape, value):
    y = xp.full(shape, value, x.dtype)
    y[inner] = x
    return y, lambda g: g[inner]


@differentiable(autocast="fallthrough")
def _pad_edges(x, pairs, mode):
    def vjp(g):
        for axis, (before, after) in enumerate(pairs):
            g = _folded(g, axis, before, after, mode) if before or after else g
        return g

    return xp.pad(x, pairs, EDGES[mode]), vjp


def _folded(g, axis, before, after, mode):
    """The cotangent before padding along an axis: those of copies are added to the originals."""
    n = g.shape[axis] - before - after
    part = lambda array, *ends: array[(slice(None),) * axis + (slice(*ends),)]
    dx = part(g, before, before + n).copy()
    front, back = part(g, before), part(g, before + n, None)
    if mode == "reflect":
        part(dx, 1, before + 1)[...] += xp.flip(front, axis)
        part(dx, n - 1 - after, n - 1)[...] += xp.flip(back, axis)
    elif mode == "replicate":
        part(dx, 1)[...] += front.sum(axis, keepdims=True)
        part(dx, n - 1, n)[...] += back.sum(axis, keepdims=True)
    else:
        part(dx, n - before, n)[...] += front
        part(dx, after)[...] += back
    return dx


def _cut(x, pairs):
    """x without the elements that negative padding cuts off."""
    if min(map(min, pairs), default=0) >= 0:
        return x
    ends = ((max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, pairs))
    return getitem(x, tuple(slice(*e) for e in ends))


def _check_edges(mode, x, pad, pairs, value):
    """Refuse what PyTorch refuses in the modes other than constant."""
    dims = len(pad) // 2
    if dims not in (1, 2, 3) or x.ndim - dims not in (1, 2):
        raise NotImplementedError(
            f"pad {pad} of {x.shape} with {mode!r}: want 2, 4 or 6 numbers for (n, c, …) or (c, …) "
            "of one, two or three padded dimensions"
        )
    if value:
        raise RuntimeError(f"pad: value {value} with mode {mode!r}: leave it out, or 'constant'")
    each = list(zip(x.shape, pairs))[-dims:]
    for n, (a, b) in each:
        left = n + min(a, 0) + min(b, 0)  # 'circular' cuts before it wraps
        most = {"reflect": n - 1, "circular": left}.get(mode, max(a, b))
        if max(a, b, 0) > max(most, 0):
            text = f"pad {pad} of {x.shape} with {mode!r}: at most {max(most, 0)} of {n} elements"
            raise RuntimeError(text + f", {n - left} of them cut off" * (left < n))
    some = any(n + a + b > 0 for n, (a, b) in each)
    if mode != "circular" and not (some and all(x.shape[x.ndim - dims - 1 :])):
        raise RuntimeError(f"pad {pad} of {x.shape} with {mode!r}: nothing to repeat, or none left")


def pad(input, pad, mode="constant", value=None):
    """Pad the last dimension by (before, after), then the last but one, …; negative numbers cut.

    mode 'constant' adds `value` (0 if None) to any dimensions. The other modes repeat elements, in
    the last one to three dimensions of (n, c, …) or (c, …). Two elements after 1 2 3 are: 2 1 by
    'reflect', 3 3 by 'replicate', 1 2 by 'circular'.
    """
    if mode not in MODES:
        raise NotImplementedError(f"pad: mode {mode!r}: want one of {', '.join(MODES)}")
    if len(pad) % 2 or len(pad) > 2 * input.ndim:
        raise RuntimeError(f"pad {pad} for {input.shape}: want two numbers for each dimension")
    rest = input.ndim - len(pad) // 2
    pairs = [(0, 0)] * rest + list(zip(pad[::2], pad[1::2]))[::-1]
    shape = tuple(n + a + b for n, (a, b) in zip(input.shape, pairs))
    if mode != "constant":
        _check_edges(mode, input, pad, pairs, value)
    if min(shape, default=0) < 0:
        raise RuntimeError(f"pad {pad} for {input.shape}: it cuts off more than there is")
    if mode == "constant":
        inner = [slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, pairs)]
        value = fitting("pad", 0 if value is None else value, input.dtype, floats=True)
        return _pad(_cut(input, pairs), tuple(inner), shape, value)
    more = [(max(a, 0), max(b, 0)) for a, b in pairs]
    if mode == "circular":
        return _pad_edges(_cut(input, pairs), more, mode)
    return _cut(_pad_edges(input, more, mode), pairs)
