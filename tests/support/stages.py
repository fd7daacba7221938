"""A GPT of eight layers, in one process and in the stages of a pipeline: the same numbers."""

from __future__ import annotations

import numpy as np

from minidist.comm import simulate
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.parallel.pipeline.schedules import make
from minidist.tensor.tensor import Tensor
from support.small import BOUND, far

CONFIG = GPTConfig(layers=8, hidden=8, heads=2, positions=7, vocab=13)
RNG = np.random.default_rng(0)
TOKENS, TARGETS = RNG.integers(0, 13, (8, 7)), RNG.integers(0, 13, (8, 7))
FEW = TARGETS.copy()  # of the first two rows nothing counts, of the next two one token does
FEW[:4] = -100
FEW[2, 3] = 5


def built(layers, dtype="float64"):
    model = GPT(CONFIG, layers=layers).to(dtype)
    model.reset_parameters(0)
    model.part_head()
    return model


def told(model, loss):
    """The loss and the gradients, by name."""
    return {"loss": np.array(loss)} | {n: p.grad.data for n, p in model.named_parameters()}


def accumulated(targets=TARGETS, m=1, dtype="float64"):
    """A model and the mean loss over all tokens that count: in m parts, without a pipeline."""
    model, count, total = built(range(8), dtype), (targets != -100).sum(), 0.0
    for x, y in zip(np.split(TOKENS, m), np.split(targets, m)):
        loss = model.loss(Tensor(x), Tensor(y), "sum")
        loss.backward(Tensor(np.full_like(loss.data, 1 / count)))
        total += loss.item()
    model.join_head()
    return model, total / count


def piped(comm, kind="1f1b", m=4, dtype="float64"):
    """A pipeline of the small model, and its micro-batches."""
    schedule = make(kind, comm.size, m)
    layers, mine = ranges(8, schedule.stages), schedule.stages_of(comm.rank)
    model = built([i for stage in mine for i in layers[stage]], dtype)
    stages = {k: lambda x, part=layers[k]: model.stage(x, part) for k in mine}
    return Pipeline(model, stages, lambda y, t: model.loss_of(y, t, "sum"), comm, schedule)


def stepped(pipeline, targets=TARGETS):
    """What one process is told, as far as this rank has it."""
    m, count = pipeline.schedule.microbatches, (targets != -100).sum()
    inputs, parts = ([Tensor(x) for x in np.split(a, m)] for a in (TOKENS, targets))
    loss = pipeline.step(inputs, parts, scale=1 / count)
    pipeline.module.join_head()
    return told(pipeline.module, loss / count)


def on_ranks(ranks, *args, **options):
    return simulate(lambda comm: stepped(piped(comm, *args, **options)), ranks)


def near(found, wanted):
    """On every rank, what it has of one process's numbers, but for rounding."""
    for ours in found:
        assert far(ours, {name: wanted[name] for name in ours}) < BOUND


ALONE = told(*accumulated())
