"""Right: products, alone and as the last layer of a language model."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .cases import SINGLE, Case, below, families, normal
from .checks import Entry
from .machine import Machine

SHAPES = [(1, 1, 1), (33, 70, 50), (257, 520, 264), (1024, 768, 512), (64, 64, 8192), (7, 4096, 96)]
TINY = [(1, 1, 1), (33, 70, 50)]
LOOSE = {"ieee": 1, "tf32": 100, "tf32x3": 2}  # digits that TF32 lacks, of float32 alone


def run(machine: Machine) -> Iterator[Entry]:
    yield from families(machine, _plain, _finished, _last_layer)


def _plain(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import matmul as k

    for m, n, depth in TINY if tiny else SHAPES:
        a, b = normal(m, depth), normal(depth, n) / depth**0.5
        name = f"matmul {m}x{n}x{depth}"
        yield Case(name, lambda a, b: [k.matmul(a, b)], [a, b], SINGLE)
        for order, given in {"nt": [a, turned(b)], "tn": [turned(a), b]}.items():
            yield Case(f"{name} {order}", _in_order(order), given, SINGLE)


def turned(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(a.T)


def _in_order(order: str):
    from minidist.kernels.matmul import matmul

    return lambda a, b: [matmul(a.T if order[0] == "t" else a, b.T if order[1] == "t" else b)]


def _finished(tiny: bool) -> Iterator[Case]:
    """Bias and activation, kept values, stacks, sums, and the precisions of float32."""
    from minidist.kernels import matmul as k

    m, n, depth = (20, 24, 16) if tiny else (300, 512, 256)
    a, b, bias = normal(m, depth), normal(depth, n) / depth**0.5, normal(n)

    def both(a, b, bias, activation):
        pre = k.xp.empty_like(a, shape=(len(a), b.shape[1]))
        return k.matmul(a, b, bias, activation, pre=pre), pre

    for name in ("relu", "gelu", "gelu_tanh", "silu"):
        run = lambda a, b, bias, name=name: both(a, b, bias, name)
        yield Case(f"matmul, bias, {name}", run, [a, b, bias], SINGLE)
    stack = normal(3, m, depth)
    yield Case("matmul of a stack", lambda a, b: [k.matmul(a, b)], [stack, b], SINGLE)
    both_stacks = [stack, normal(3, depth, n) / depth**0.5]
    yield Case("matmul of two stacks", lambda a, b: [k.matmul(a, b)], both_stacks, SINGLE)
    yield Case("column sums", lambda g: [k.column_sums(g)], [normal(m, n)], SINGLE)
    for precision, slack in LOOSE.items():
        run = lambda a, b, how=precision: [k.matmul(a, b, precision=how)]
        yield Case(f"matmul {precision}", run, [a, b], ("float32",), slack)


def _last_layer(tiny: bool) -> Iterator[Case]:
    from minidist.kernels import linear_cross_entropy as k

    def run(hidden, weight, target, g):
        losses, saved = k.forward(hidden, weight, target)
        return losses, *k.backward(g, saved, hidden, weight, target)

    for n, h, v in [(5, 8, 11)] if tiny else [(5, 8, 11), (1500, 256, 5003)]:
        given = [normal(n, h), normal(v, h) / h**0.5, below(v, n), normal(n)]
        name = f"linear cross-entropy {n}x{h}x{v}"
        yield Case(name, run, given, ("float32", "float16"))
        yield Case(f"{name}, all alike", run, [*given[:3], np.ones(n)], ("float32", "float16"))
