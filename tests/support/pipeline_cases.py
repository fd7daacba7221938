"""What tests of pipelines share: three models, one process that accumulates, and stages that do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import minidist as md
from minidist import nn, random
from minidist.comm import shard_bounds
from minidist.models.gpt import GPT, GPTConfig
from minidist.nn import functional as F
from minidist.optim import AdamW
from minidist.parallel.pipeline.actions import Schedule
from minidist.parallel.pipeline.cut import cut, ranges
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.tensor.tensor import Tensor

LAYERS, VOCAB, WORDS = 8, 11, 6
CONFIG = GPTConfig(LAYERS, hidden=8, heads=2, positions=WORDS, vocab=VOCAB, dropout=0.1)


class Pick(nn.Module):
    """The first of what a layer returns."""

    def __init__(self, layer: nn.Module):
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)[0]


class Steps(nn.Module):
    """Images (b, 1, 8, 8) as 8 steps of 8 numbers: (b, 8, 8)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], 8, 8)


class LastStep(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


def cnn() -> nn.Sequential:
    """Eight layers, with running statistics and dropout."""
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Dropout(0.2, name="drop"), nn.Linear(24, 10),
    )  # fmt: skip


def lstm() -> nn.Sequential:
    """Six LSTMs of one layer each; the last one's last step is read, transposed on its way."""
    stack = [Pick(nn.LSTM(8, 8, batch_first=True)) for _ in range(5)]
    return nn.Sequential(Steps(), *stack, nn.Sequential(LastStep(), nn.Linear(8, 10)), nn.Tanh())


def sum_of_losses(y: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(y, target, reduction="sum")


class Parts(NamedTuple):
    """A rank's module, its stages, and the loss of the last."""

    module: Any
    stages: dict[int, Callable[[Tensor], Tensor]]
    criterion: Callable[[Tensor, Tensor], Tensor]


def gpt_parts(layers: list[range], mine: list[int]) -> Parts:
    model = GPT(CONFIG, 0, layers=[i for stage in mine for i in layers[stage]])
    model.part_head()
    stages = {k: lambda x, part=layers[k]: model.stage(x, part) for k in mine}
    return Parts(model, stages, lambda y, t: model.loss_of(y, t, "sum"))


def sequential_parts(build: Callable[[], nn.Sequential], layers: list, mine: list[int]) -> Parts:
    md.manual_seed(0)
    return Parts(*cut(build(), layers, mine), sum_of_losses)


PARTS: dict[str, Callable[[list[range], list[int]], Parts]] = {
    "gpt": gpt_parts,
    "cnn": lambda layers, mine: sequential_parts(cnn, layers, mine),
    "lstm": lambda layers, mine: sequential_parts(lstm, layers, mine),
}
SIZES = {"gpt": LAYERS, "cnn": 8, "lstm": 8}
FIXED = [  # schedule, ranks, micro-batches, chunks
    ("gpipe", 4, 8, None), ("1f1b", 4, 8, None), ("interleaved", 2, 8, 4), ("zb-h1", 4, 8, None),
    ("zb-h1", 2, 4, 2), ("zb-h2", 4, 8, None), ("zbv", 4, 8, None), ("dualpipev", 2, 8, None),
    ("1f1b", 8, 8, None), ("1f1b", 3, 8, None),
]  # fmt: skip


def data(name: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(rows)
    if name == "gpt":
        words = rng.integers(0, VOCAB, (rows, WORDS + 1))
        return words[:, :-1].copy(), words[:, 1:].copy()
    return rng.standard_normal((rows, 1, 8, 8)).astype("f4"), rng.integers(0, 10, rows)


class Found(NamedTuple):
    """Of each step the loss and every gradient, and what is there after the last."""

    losses: list[float]
    gradients: list[dict[str, bytes]]
    state: dict[str, bytes]


def trained(parts: Parts, step: Callable[[int], float], steps: int) -> Found:
    losses, gradients = [], []
    params = list(parts.module.parameters()) or [nn.Parameter(np.zeros(1, "f4"))]
    optimizer = AdamW(params, lr=1e-2)  # a stage may have none
    for k in range(steps):
        losses.append(step(k))
        if isinstance(parts.module, GPT):
            parts.module.join_head()
        grads = {n: p.grad for n, p in parts.module.named_parameters()}
        gradients.append({n: None if g is None else g.data.tobytes() for n, g in grads.items()})
        optimizer.step()
        optimizer.zero_grad()
    return Found(losses, gradients, {n: a.tobytes() for n, a in parts.module.state_dict().items()})


def accumulated(name: str, rows: int, m: int, steps: int = 3) -> Found:
    """One process that adds up the gradients of micro-batches: no code of the pipeline's."""
    parts, (x, y) = PARTS[name](ranges(SIZES[name], 1), [0]), data(name, rows)

    def step(k: int) -> float:
        total = 0.0
        for first, last in shard_bounds(rows, m):
            with random.at(0, k, first):
                output = parts.stages[0](Tensor(x[first:last]))
                loss = parts.criterion(output, Tensor(y[first:last]))
            loss.backward(Tensor(np.full_like(loss.data, 1 / rows)))
            total += loss.item()
        return total

    return trained(parts, step, steps)


def make_pipeline(comm: Any, name: str, schedule: Schedule, split: Any = None) -> Pipeline:
    layers = ranges(SIZES[name], schedule.stages, split)
    parts = PARTS[name](layers, schedule.stages_of(comm.rank))
    return Pipeline(parts.module, parts.stages, parts.criterion, comm, schedule)


def batches(name: str, rows: int, m: int) -> tuple[list[Tensor], list[Tensor], list]:
    (x, y), bounds = data(name, rows), shard_bounds(rows, m)
    return [Tensor(x[a:b]) for a, b in bounds], [Tensor(y[a:b]) for a, b in bounds], bounds


def piped(
    comm: Any, name: str, schedule: Schedule, rows: int, split: Any = None, steps: int = 3
) -> Found:
    """The same in stages, on this rank."""
    pipeline = make_pipeline(comm, name, schedule, split)
    xs, ys, bounds = batches(name, rows, schedule.microbatches)
    step = lambda k: pipeline.step(xs, ys, lambda i: random.at(0, k, bounds[i][0]), 1 / rows)
    return trained(Parts(pipeline.module, pipeline.stages, pipeline.criterion), step, steps)


def evaluated(microbatches: tuple[int, ...]) -> list[tuple[float, list[bytes]]]:
    """Of the CNN on one process: for each number of micro-batches the loss, and the outputs."""
    module, stages, criterion = PARTS["cnn"](ranges(SIZES["cnn"], 1), [0])
    module.eval()
    found = []
    for m in microbatches:
        xs, ys, _ = batches("cnn", 10, m)
        outputs = [stages[0](x) for x in xs]
        loss = sum(criterion(y, t).item() for y, t in zip(outputs, ys))
        found.append((loss, [y.data.tobytes() for y in outputs]))
    return found


def assert_same(ranks: list[Found], one: Found) -> None:
    """Losses on all ranks, every gradient of every step, and the state: to the last bit."""
    for found in ranks:
        assert found.losses == one.losses, f"losses {found.losses}, want {one.losses}"
        for k, gradients in enumerate(found.gradients):
            for name, g in gradients.items():
                assert g == one.gradients[k][name], f"step {k}: gradient of {name} differs"
        for name, value in found.state.items():
            assert value == one.state[name], f"{name} differs after the last step"
    assert {name for found in ranks for name in found.state} == one.state.keys()
