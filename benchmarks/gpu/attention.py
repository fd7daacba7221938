"""Right: flash attention, causal and not, masked, with groups of heads, of odd sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from .cases import SINGLE, Case, families, normal
from .checks import Entry
from .machine import Machine


class Sizes(NamedTuple):
    b: int
    heads: int
    few: int  # heads of keys and values
    s: int
    t: int
    d: int
    e: int


TINY = [Sizes(1, 2, 1, 5, 7, 4, 4), Sizes(1, 1, 1, 20, 20, 16, 16)]
LARGE = [
    Sizes(2, 4, 2, 33, 70, 24, 40), Sizes(2, 3, 3, 256, 256, 64, 64),
    Sizes(1, 2, 2, 513, 513, 128, 128), Sizes(1, 2, 2, 130, 150, 256, 256),
    Sizes(1, 4, 1, 200, 333, 64, 64),
]  # fmt: skip


def run(machine: Machine) -> Iterator[Entry]:
    yield from families(machine, flash_attention)


def flash_attention(tiny: bool) -> Iterator[Case]:
    for sizes in TINY if tiny else LARGE:
        b, heads, few, s, t, d, e = sizes
        name = "attention " + " ".join(f"{k}{v}" for k, v in zip("baKstde", sizes))
        shapes = (b, heads, s, d), (b, few, t, d), (b, few, t, e), (b, heads, s, e)
        given = [normal(*shape, seed=i) for i, shape in enumerate(shapes)]
        for causal in (False, True):
            yield Case(f"{name}{' causal' * causal}", _attend(causal, d**-0.5), given, SINGLE, 2)
    b, heads, _, s, t, d, _ = sizes
    mask = np.where(normal(b, heads, s, t) > 1, -np.inf, normal(b, heads, s, t, seed=1))
    mask[:, :, 1] = -np.inf  # a query that sees nothing
    yield Case(f"{name} masked", _attend(False, d**-0.5), [*given, mask], SINGLE, 2)
    layers = [np.ascontiguousarray(x.swapaxes(1, 2)) for x in given]
    yield Case(f"{name} of views", _of_views(d**-0.5), layers, SINGLE, 2)


def _attend(causal: bool, scale: float):
    """[out, log-sum-exp, the cotangents of q, k, v and of the mask if there is one]."""
    from minidist.kernels import attention

    def attend(q, k, v, g, mask=None):
        out, dq, dk, dv = (attention.xp.empty_like(x) for x in (g, q, k, v))
        dmask = None if mask is None else attention.xp.empty_like(mask)
        lse = attention.forward(q, k, v, out, causal, scale, mask)
        attention.backward(g, q, k, v, out, lse, dq, dk, dv, causal, scale, mask, dmask)
        return [out, lse, dq, dk, dv, *([] if mask is None else [dmask])]

    return attend


def _of_views(scale: float):
    """Layers give (b, s, a, d); the heads are a view of it."""
    attend = _attend(True, scale)
    return lambda *layers: attend(*(x.swapaxes(1, 2) for x in layers))
