"""Right: what goes along rows: softmax, norms, cross-entropy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .cases import EVERY, Case, below, families, normal
from .checks import Entry
from .machine import Machine

TINY = [(5, 7), (3, 130)]
SHAPES = [(5, 7), (3, 130), (300, 1000), (65, 8200), (7, 50304)]


def run(machine: Machine) -> Iterator[Entry]:
    yield from families(machine, *(_by_shape(f) for f in (_softmax, _norms, _cross_entropy)))


def _by_shape(family: Callable[[int, int], Iterator[Case]]) -> Callable[[bool], Iterator[Case]]:
    @functools.wraps(family)
    def cases(tiny: bool) -> Iterator[Case]:
        for shape in TINY if tiny else SHAPES:
            yield from family(*shape)

    return cases


def _softmax(n: int, v: int) -> Iterator[Case]:
    from minidist.kernels import softmax as k

    def both(forward: Callable, backward: Callable) -> Callable[..., Any]:
        def run(x, g):
            y = forward(x, 1)
            return y, backward(g, y, 1)

        return run

    given = [3 * normal(n, v), normal(n, v, seed=1)]
    yield Case(f"softmax {n}x{v}", both(k.forward, k.backward), given)
    # the sum of a row of g, times exp(y): of many columns a rounding of y weighs more
    log = both(k.log_forward, k.log_backward)
    yield Case(f"log softmax {n}x{v}", log, given, EVERY, max(1, v**0.5 / 16))
    if v == 130:
        turned = [np.ascontiguousarray(a.T) for a in given]
        run = lambda x, g: [k.backward(g, y := k.forward(x, 0), 0), y]
        yield Case(f"softmax down {v}x{n}", run, turned)


def _norms(n: int, h: int) -> Iterator[Case]:
    from minidist.kernels import layer_norm, rms_norm

    def layer(g, x, w, b):
        y, stats = layer_norm.forward(x, w, b, 0.01)
        return y, *layer_norm.backward(g, x, w, stats)

    def rms(g, x, w):
        y, scale = rms_norm.forward(x, w, 0.01)
        return y, *rms_norm.backward(g, x, w, scale)

    g, x, w, b = normal(n, h), normal(n, h, seed=1) + 0.5, normal(h), normal(h, seed=1)
    yield Case(f"layer norm {n}x{h}", layer, [g, x, w, b])
    yield Case(f"layer norm {n}x{h}, plain", lambda g, x: layer(g, x, None, None)[:2], [g, x])
    yield Case(f"rms norm {n}x{h}", rms, [g, x, w])


def _cross_entropy(n: int, v: int) -> Iterator[Case]:
    from minidist.kernels import cross_entropy as k

    def run(logits, g, target):
        losses, sums = k.forward(logits, target)
        return losses, k.backward(g, logits, sums, target)

    def in_place(logits, target):
        logits = logits.copy()
        return k.gradient_(logits, target), logits

    logits, target = 3 * normal(n, v), below(v, n)
    yield Case(f"cross-entropy {n}x{v}", run, [logits, normal(n), target])
    yield Case(f"cross-entropy {n}x{v} in place", in_place, [logits, target])
