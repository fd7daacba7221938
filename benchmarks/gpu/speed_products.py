"""How fast: products of large matrices, beside cuBLAS by way of PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

from .bench import OURS, TORCH, Bench, Speed, bound_of, measured
from .checks import Entry
from .machine import Machine

GOAL = 0.9


def run(machine: Machine) -> Iterator[Entry]:
    bench = Bench(machine)
    sizes = (32,) if machine.tiny else (8192, 4096, 2048)
    halves = ("bfloat16", "float16")
    yield from measured(bench, (square(n, dtype) for n in sizes for dtype in halves))
    yield from measured(bench, of_a_layer(machine.tiny))


def square(n: int, dtype: str) -> Speed:
    return product(f"matmul {n} {dtype}", n, n, n, dtype, "nn", GOAL)


def of_a_layer(tiny: bool) -> Iterator[Speed]:
    """Those of GPT-2's widest layer, forward and backward, and float32 in two precisions."""
    m, n, k = (24, 32, 16) if tiny else (8192, 3072, 768)
    yield product("layer: y = x W^T", m, n, k, "bfloat16", "nt")
    yield product("layer: dx = g W", m, k, n, "bfloat16", "nn")
    yield product("layer: dW = g^T x", n, k, m, "bfloat16", "tn")
    side = 16 if tiny else 4096
    yield product(f"matmul {side} float32, IEEE", side, side, side, "float32", "nn")


def product(
    name: str, m: int, n: int, k: int, dtype: str, order: str, goal: float | None = None
) -> Speed:
    def make(bench: Bench):
        from minidist.kernels.matmul import matmul

        a = bench.normal(*((m, k) if order[0] == "n" else (k, m)), dtype=dtype)
        b = bench.normal(*((k, n) if order[1] == "n" else (n, k)), dtype=dtype)
        a.div_(k**0.5)
        ours, theirs = (bench.array(a), bench.array(b)), (a, b)
        x, w = (p.T if o == "t" else p for p, o in zip(ours, order))
        t, u = (p.T if o == "t" else p for p, o in zip(theirs, order))
        return {OURS: lambda: [matmul(x, w)], TORCH: lambda: [bench.torch.matmul(t, u)]}

    return Speed(name, make, "TFLOP/s", 2.0 * m * n * k, bound_of(dtype), goal)
