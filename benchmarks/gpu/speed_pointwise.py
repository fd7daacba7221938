"""How fast: a large vocabulary's cross-entropy, AdamW over GPT-2, GELU, and a launch by itself."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from .bench import OURS, TORCH, Bench, Speed, bound_of, measured
from .checks import Entry, told
from .machine import Machine

PARAMETERS = 124_475_904  # of GPT-2 with a vocabulary of 50304
LAUNCHES = 500


def run(machine: Machine) -> Iterator[Entry]:
    bench = Bench(machine)
    yield from measured(bench, cases(machine.tiny))
    if not machine.tiny:
        yield launching(bench)


def cases(tiny: bool) -> Iterator[Speed]:
    n, v = (5, 33) if tiny else (8192, 50304)
    for dtype in ("bfloat16", "float32"):
        yield cross_entropy(n, v, dtype)
    yield adamw(100 if tiny else PARAMETERS)
    for dtype in ("bfloat16", "float32"):
        yield gelu(100 if tiny else 1 << 27, dtype)


def cross_entropy(n: int, v: int, dtype: str) -> Speed:
    """Forward reads the logits, backward reads them again and writes their cotangents."""

    def make(bench: Bench) -> dict[str, Callable[[], Any]]:
        from minidist.kernels import cross_entropy as k

        x, target = bench.normal(n, v, dtype=dtype, grad=True), bench.below(v, n)
        g = bench.normal(n, dtype=dtype)
        logits, index, c = (bench.array(t) for t in (x, target, g))

        def ours():
            losses, sums = k.forward(logits, index)
            return losses, k.backward(c, logits, sums, index)

        def theirs():
            losses = bench.torch.nn.functional.cross_entropy(x, target, reduction="none")
            return losses, *bench.torch.autograd.grad(losses, x, g)

        return {OURS: ours, TORCH: theirs}

    moved = 3.0 * n * v * (4 if dtype == "float32" else 2)
    return Speed(f"cross-entropy {n}x{v} {dtype}, both ways", make, "GB/s", moved, bound_of(dtype))


def adamw(n: int) -> Speed:
    """p, g, m and v are read, p, m and v are written."""

    def make(bench: Bench) -> dict[str, Callable[[], Any]]:
        from minidist.kernels import adamw as k

        p, g = bench.normal(n), bench.normal(n)
        ours = [bench.array(t.clone()) for t in (p, g, 0 * p, 0 * p)]
        p.grad = g
        optimiser = bench.torch.optim.AdamW([p], 1e-3, (0.9, 0.95), 1e-8, 0.1, fused=True)

        def step():
            k.step_(*ours, step=1, lr=1e-3, beta1=0.9, beta2=0.95, eps=1e-8, weight_decay=0.1)
            return ours[:1]

        return {OURS: step, TORCH: lambda: (optimiser.step(), [p])[1]}

    return Speed(f"AdamW of {n}, one array", make, "GB/s", 28.0 * n, bound_of("float32"))


def gelu(n: int, dtype: str) -> Speed:
    """By the bytes of x and y; ours writes the slope too, for backward."""

    def make(bench: Bench) -> dict[str, Callable[[], Any]]:
        from minidist.kernels import gelu as k

        x = bench.normal(n, dtype=dtype)
        a, theirs = bench.array(x), bench.torch.nn.functional.gelu
        return {
            OURS: lambda: k.forward(a, "tanh")[:1],
            TORCH: lambda: [theirs(x, approximate="tanh")],
        }

    moved = 2.0 * n * (4 if dtype == "float32" else 2)
    return Speed(f"GELU of {n} {dtype}, forward", make, "GB/s", moved, bound_of(dtype))


def launching(bench: Bench) -> Entry:
    """What Python takes for one small operation: a bound on how small a step can be."""
    from minidist.kernels import swiglu

    x = bench.normal(8, 16)
    a, theirs = bench.array(x), bench.torch.nn.functional.silu
    try:
        ms = {OURS: _each(bench, lambda: swiglu.forward(a)), TORCH: _each(bench, lambda: theirs(x))}
    except Exception as problem:
        return {"kind": "check", "name": "a launch: timed", "ok": False, **told(problem)}
    return {
        "kind": "speed", "name": "a launch, by Python's clock", "unit": "launches/ms", "ms": ms,
        "figures": {name: 1 / t for name, t in ms.items()}, "beside": TORCH,
        "ratio": ms[TORCH] / ms[OURS], "goal": None, "met": None, "repeats": LAUNCHES,
    }  # fmt: skip


def _each(bench: Bench, run: Callable[[], Any]) -> float:
    """Milliseconds of Python's time, the mean of many."""
    run()
    bench.machine.synchronize()
    start = time.perf_counter()
    for _ in range(LAUNCHES):
        run()
    seconds = time.perf_counter() - start
    bench.machine.synchronize()
    return 1e3 * seconds / LAUNCHES
