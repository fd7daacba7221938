"""A rank's part of a GPT: its stages of the pipeline, and how all ranks run them."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.modes import no_grad
from ..comm import Communicator, broadcast
from ..models.gpt import GPT, continued
from ..ops import communication
from ..parallel.pipeline.actions import Schedule
from ..parallel.pipeline.cut import balance, ranges
from ..parallel.pipeline.run.runtime import Pipeline
from ..plan.flops import layer_costs
from ..tensor.tensor import Tensor
from .config import TrainConfig

Layers = list[range]


def layers_of(c: TrainConfig, vocab: int, schedule: Schedule) -> Layers:
    """Those of each stage: as --split says, or balanced by FLOPs."""
    config, stages = c.gpt(vocab), schedule.stages
    split = c.split or balance(layer_costs(config, c.seq), stages, schedule.rank_of)
    return ranges(config.layers, stages, split)


def make_model(c: TrainConfig, vocab: int, tp: Communicator, layers: Layers) -> GPT:
    """The GPT of these stages, whose weights depend on the seed and their names alone."""
    mine = [i for part in layers for i in part]
    model = GPT(c.gpt(vocab), c.seed, tp, c.sequence_parallel, mine)
    if c.dtype != "float32":
        model.to(c.dtype)
        model.reset_parameters(c.seed)
    model.to(c.device)
    return model


def make_pipeline(model: GPT, layers: Layers, comm: Communicator, schedule: Schedule) -> Pipeline:
    """The schedule's stages of the model; the loss is a sum.

    A single stage leaves all to `loss`: for ZeRO-3 the weights are whole as long as that runs.
    """
    if schedule.stages == 1:
        whole = lambda tokens, target: model.loss(tokens, target, "sum")
        return Pipeline(model, {0: lambda tokens: tokens}, whole, comm, schedule)
    mine = schedule.stages_of(comm.rank)
    stages = {stage: lambda x, part=layers[stage]: model.stage(x, part) for stage in mine}
    criterion = lambda states, target: model.loss_of(states, target, "sum")
    return Pipeline(model, stages, criterion, comm, schedule)


def microbatches(x: np.ndarray, bounds: list[tuple[int, int]], device: str) -> list[Tensor]:
    """Rows of x as Tensors, where they are computed with: none keeps the others' memory."""
    return [Tensor(x[first:last].copy()).to(device) for first, last in bounds]


def rows_of(rows: int, microbatch: int) -> list[tuple[int, int]]:
    """Bounds of as many rows each, fewer in the last."""
    return [(at, min(at + microbatch, rows)) for at in range(0, rows, microbatch)]


@no_grad()
def generate(
    pipeline: Pipeline, model: GPT, prompt: np.ndarray, device: str, *how: Any
) -> np.ndarray:
    """GPT.generate, through all stages: every rank draws the same. how: tokens, temperature, …"""
    if pipeline.schedule.stages == 1:
        return model.generate(prompt, *how)
    tokens, *rest = how

    def follow(window: np.ndarray) -> Tensor:
        model.expect(window.shape[1])
        states = pipeline.forward([Tensor(window).to(device)])
        logits = np.empty(model.config.vocab)
        if states is not None:
            whole = communication.gather(model.part_of_logits(states[0]), model.tp, -1)
            logits = whole[0, -1].cpu().double().data
        return Tensor(broadcast(pipeline.comm, logits, root=pipeline.last, label="logits"))

    return continued(follow, prompt, tokens, model.config.positions, *rest)
