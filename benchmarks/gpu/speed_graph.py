"""A training step of GPT-2 in bfloat16 as a CUDA graph: can it be captured, is it right, how fast.

Launch after launch, a step of a small batch waits for Python; a graph is one launch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .bench import OURS, Bench, Speed, told_as
from .checks import Entry, check, told
from .machine import Machine
from .speed_step import LARGE, OPTIONS, Sizes, model_of, parameters

EAGER, BATCH, WARM, REPLAYS = f"{OURS} eager", 2, 3, 5
BOUND = 5e-2  # nats: a captured embedding's gradient is summed in another order
Step = Callable[[], Any]


def run(machine: Machine) -> Iterator[Entry]:
    if machine.tiny:
        yield note("a captured step: left out, the interpreter has no CUDA graphs")
        return
    bench, sizes = Bench(machine), LARGE._replace(batch=BATCH)
    eager, other = Training(machine, sizes), Training(machine, sizes)
    wanted = [eager.eager(i) for i in range(WARM + REPLAYS)]
    try:
        for i in range(WARM):
            other.eager(i)
        replay = captured(other)
    except Exception as problem:
        yield {"kind": "check", "name": f"{name(sizes)} is captured", "ok": False, **told(problem)}
        return
    yield note(f"{name(sizes)} is captured")
    yield check(f"losses of {REPLAYS} replays: as of eager steps", BOUND, apart, other, replay,
                wanted[WARM:])  # fmt: skip
    try:
        yield timed(bench, sizes, replay, eager.step)
    except Exception as problem:
        yield {"kind": "check", "name": f"{name(sizes)}: timed", "ok": False, **told(problem)}


def note(said: str) -> Entry:
    return {"kind": "check", "name": said, "bound": 0, "error": 0.0, "ok": True}


def name(sizes: Sizes) -> str:
    return f"step of GPT-2, batch {sizes.batch}"


class Training:
    """A GPT-2 whose step reads its batch, of some few, from the same memory each time."""

    def __init__(self, machine: Machine, sizes: Sizes):
        import minidist as md
        from minidist.optim import AdamW

        self.device, rng = machine.device, np.random.default_rng(0)
        shape = (WARM + REPLAYS, 2, sizes.batch, sizes.positions)
        self.batches = md.tensor(rng.integers(0, sizes.vocab, shape), device=self.device)
        self.model = copy.deepcopy(model_of(sizes)).to(self.device)
        self.optimiser = AdamW(self.model.parameters(), capturable=True, **OPTIONS)
        self.x, self.y = self.batches[0, 0].clone(), self.batches[0, 1].clone()

    def put(self, i: int) -> None:
        self.x.copy_(self.batches[i, 0])
        self.y.copy_(self.batches[i, 1])

    def step(self) -> Any:
        import minidist as md

        self.optimiser.zero_grad()
        with md.autocast(self.device, "bfloat16"):
            self.loss = self.model.loss(self.x, self.y)
        self.loss.backward()
        self.optimiser.step()
        return self.loss

    def eager(self, i: int) -> float:
        self.put(i)
        return self.step().item()


def captured(training: Training) -> Step:
    from minidist import cuda

    training.optimiser.zero_grad()
    graph = cuda.CUDAGraph()
    with cuda.graph(graph):
        training.step()
    return graph.replay


def apart(training: Training, replay: Step, wanted: list[float]) -> float:
    """How far the losses of replays on the next batches are from those of eager steps."""
    found = []
    for i in range(WARM, WARM + REPLAYS):
        training.put(i)
        replay()
        found.append(training.loss.item())
    return float(np.abs(np.subtract(found, wanted)).max())


def timed(bench: Bench, sizes: Sizes, replay: Step, eager: Step) -> Entry:
    """Milliseconds a step of both."""
    tokens = sizes.batch * sizes.positions
    flops = 6 * parameters(sizes) + 12 * sizes.layers * sizes.hidden * sizes.positions
    speed = Speed(f"{name(sizes)}, replayed", lambda _: {}, "TFLOP/s", tokens * flops, BOUND,
                  beside=EAGER, repeats=20)  # fmt: skip
    return told_as(speed, bench.race({OURS: replay, EAGER: eager}, speed.repeats, flush=False))
