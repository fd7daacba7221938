"""How fast: softmax and layer norm, beside a copy of as many bytes, and PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from .bench import OURS, TORCH, Bench, Speed, bound_of, measured
from .checks import Entry
from .machine import Machine

GOAL, COPY = 0.9, "copy"
SHAPES = [(8192, 4096), (4096, 16384)]


def run(machine: Machine) -> Iterator[Entry]:
    yield from measured(Bench(machine), cases(machine.tiny))


def cases(tiny: bool) -> Iterator[Speed]:
    for n, h in [(5, 33)] if tiny else SHAPES:
        for dtype in ("float16", "bfloat16", "float32"):
            for back in (False, True):
                for of, make in (("softmax", softmax), ("layer norm", layer_norm)):
                    yield row_by_row(of, make, n, h, dtype, back)


def row_by_row(of: str, make: Callable[..., Any], n: int, h: int, dtype: str, back: bool) -> Speed:
    """Forward reads and writes; backward reads two arrays and writes one."""
    moved = n * h * (4 if dtype == "float32" else 2) * (3.0 if back else 2.0)

    def contestants(bench: Bench):
        x, g = (bench.normal(n, h, dtype=dtype, grad=grad) for grad in (back, False))
        forward, backward, theirs, sources = make(bench, x, g)
        grad, y = bench.torch.autograd.grad, theirs()
        return {
            OURS: backward if back else forward,
            TORCH: (lambda: grad(y, sources, g, retain_graph=True)) if back else lambda: [theirs()],
            COPY: copy(bench, int(moved / 2)),
        }

    name = f"{of} {n}x{h} {dtype} {'backward' if back else 'forward'}"
    return Speed(name, contestants, "GB/s", moved, bound_of(dtype), GOAL, COPY)


def copy(bench: Bench, count: int) -> Callable[[], Any]:
    """A copy that reads and writes so many bytes."""
    a, b = (bench.torch.zeros(count, dtype=bench.torch.uint8, device=bench.device) for _ in "ab")
    return lambda: b.copy_(a)


def softmax(bench: Bench, x, g):
    """Ours forward and backward, PyTorch's forward, and what it has gradients of."""
    from minidist.kernels import softmax as k

    a, c = bench.array(x), bench.array(g)
    y = k.forward(a, 1)
    theirs = lambda: bench.torch.softmax(x, 1)
    return lambda: [k.forward(a, 1)], lambda: [k.backward(c, y, 1)], theirs, [x]


def layer_norm(bench: Bench, x, g):
    from minidist.kernels import layer_norm as k

    dtype = str(x.dtype).removeprefix("torch.")
    w, b = (bench.normal(x.shape[1], dtype=dtype, grad=x.requires_grad) for _ in range(2))
    a, c, v, u = (bench.array(t) for t in (x, g, w, b))
    _, stats = k.forward(a, v, u, 1e-5)
    theirs = lambda: bench.torch.nn.functional.layer_norm(x, w.shape, w, b, 1e-5)
    forward, backward = lambda: k.forward(a, v, u, 1e-5)[:1], lambda: k.backward(c, a, v, stats)
    return forward, backward, theirs, [x, w, b]
