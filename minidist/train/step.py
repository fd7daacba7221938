"""One training step: forward, loss / count, backward, sum over replicas, clip, optimizer.step().

`TrainStep` is the step. Its first three parts are a `forward_backward` of which there are two, with
the same arguments and results: `Accumulation` where a rank has the whole model, and `Pipelined`
where the layers lie on several stages. The trainer chooses one when it is built.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..amp import GradScaler, autocast
from ..autograd.modes import no_grad
from ..autograd.tape import source
from ..comm import Communicator, broadcast
from ..models.gpt import GPT, continued
from ..nn import Parameter
from ..ops import communication
from ..parallel.clip_grad import clip_grad_norm_
from ..parallel.layout import sharded_parameters
from ..parallel.pipeline.actions import Schedule
from ..parallel.pipeline.run.runtime import Pipeline
from ..parallel.sequence import partial_parameters, sum_partial
from ..parallel.zero.optimizer import Zero
from ..tensor import random
from ..tensor.tensor import Tensor
from .config import TrainConfig
from .memory import Peak


@dataclass(frozen=True)
class Batch:
    """This rank's rows of a global batch, as micro-batches."""

    tokens: list[Tensor]  # (rows, s) each
    targets: list[Tensor]  # (rows, s) each: the token after each token
    count: int = 0  # tokens of the global batch, on all replicas together
    step: int = 0
    samples: list[int] = field(default_factory=list)  # each one's first row in the global batch


class TrainStep:
    """A call is one step of the optimizer, on one rank as on many."""

    def __init__(
        self, config: TrainConfig, model: GPT, passes: Accumulation | Pipelined, optimizer: Any,
        reducer: Any, scaler: GradScaler, groups: tuple[Communicator, ...],
    ):  # fmt: skip
        self.config, self.model, self.passes = config, model, passes
        self.optimizer, self.reducer, self.scaler = optimizer, reducer, scaler
        self.pp, self.dp, self.tp = groups
        self.shared_out = {id(p) for p in sharded_parameters(model)}

    def __call__(self, batch: Batch, lr: float) -> tuple[float, Tensor]:
        """Returns the sum of this replica's losses, and the norm of the whole gradient."""
        loss_sum = self.passes.forward_backward(batch, self.scaler, self.reducer)
        if self.config.sequence_parallel and not sums_partial_early(self.config):
            sum_partial(partial_parameters(self.model), self.tp)
        self.reducer.sum_gradients()  # over the replicas
        self.scaler.unscale_(self.optimizer)
        norm = self.clip()
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss_sum, norm  # the caller calls optimizer.zero_grad()

    def clip(self) -> Tensor:
        """Scale the gradient down to the largest norm allowed (0: any); returns the norm before.

        The norm is that of the whole model, so the function needs to know which gradients are
        shards, and which are already counted by another stage.
        """
        if isinstance(self.optimizer, Zero):
            pairs = [(piece.own, piece.param) for piece in self.optimizer.pieces]
            shards = self.dp
        else:
            pairs, shards = [(p, p) for p in self.model.parameters()], None
        elsewhere = {id(p) for p in self.passes.counted_elsewhere}
        return clip_grad_norm_(
            [own for own, _ in pairs], self.config.clip or math.inf, self.tp,
            [own for own, p in pairs if id(p) in self.shared_out], shards,
            self.pp, [own for own, p in pairs if id(p) in elsewhere],
        )  # fmt: skip


class Accumulation:
    """Forward and backward on one stage: micro-batches one after the other, gradients added up."""

    def __init__(self, config: TrainConfig, model: GPT):
        self.config, self.model = config, model
        self.names = {name for name, _ in model.named_parameters()}  # of all stages
        self.counted_elsewhere: list[Parameter] = []  # another stage has them, and counts them
        self.late: list[Parameter] = []  # another stage's part is added after backward
        self.peak: Peak | None = None  # counts activations while it is there

    def forward_backward(self, batch: Batch, scaler: GradScaler, reducer: Any) -> float:
        """Add the gradient of loss / count to `grad`; returns the sum of the losses."""
        total, last = 0.0, len(batch.tokens) - 1
        for i, (tokens, targets) in enumerate(zip(batch.tokens, batch.targets)):
            with lower_precision(self.config), random.at(*place(self.config, batch, i)):
                loss_sum = self.model.loss(tokens, targets, reduction="sum")
            if self.peak is not None:
                self.peak.keep(0, [source(loss_sum)])
            # Divided once, by the global count: so the sum over replicas is the gradient of the
            # global mean, also where replicas have different numbers of rows.
            loss = loss_sum / batch.count
            with contextlib.nullcontext() if i == last else no_sync(reducer):
                scaler.scale(loss).backward()
            total += loss_sum.item()
        self.model.join_head()
        return total

    @no_grad()
    def evaluate(self, batch: Batch) -> float:
        """The sum of the losses, without gradients."""
        total = 0.0
        for tokens, targets in zip(batch.tokens, batch.targets):
            with lower_precision(self.config):
                total += self.model.loss(tokens, targets, reduction="sum").item()
        return total

    def generate(self, prompt: np.ndarray, *how: Any) -> np.ndarray:
        """GPT.generate; `how`: tokens, temperature, top_k, seed, context."""
        return self.model.generate(prompt, *how)


class Pipelined:
    """Forward and backward through the stages of a pipeline, in the order of its schedule."""

    def __init__(
        self, config: TrainConfig, model: GPT, layers: list[range], comm: Communicator,
        schedule: Schedule,
    ):  # fmt: skip
        stages = {
            stage: lambda x, part=layers[stage]: model.stage(x, part)
            for stage in schedule.stages_of(comm.rank)
        }
        criterion = lambda states, targets: model.loss_of(states, targets, "sum")
        self.config, self.model = config, model
        self.pipeline = Pipeline(model, stages, criterion, comm, schedule)
        tied = self.pipeline.tied
        self.names, self.counted_elsewhere = tied.names, tied.counted
        self.late = [p for _, params in tied.groups for p in params]
        self.peak: Peak | None = None

    def forward_backward(self, batch: Batch, scaler: GradScaler, reducer: Any) -> float:
        """As Accumulation's, to the bit.

        The last stage's backward starts from scale / count, which is the number that backward of
        scale * (loss / count) arrives at.
        """

        @contextlib.contextmanager
        def around(i: int) -> Iterator[None]:
            with lower_precision(self.config), random.at(*place(self.config, batch, i)):
                yield

        self.model.set_length(self.config.seq)
        self.pipeline.gradients = None if isinstance(reducer, Zero) else reducer
        self.pipeline.watch = None if self.peak is None else self.peak.watch
        scale = scaler.get_scale() / batch.count
        total = self.pipeline.step(batch.tokens, batch.targets, around, scale)
        self.pipeline.watch = None
        self.model.join_head()
        return total

    def evaluate(self, batch: Batch) -> float:
        if not batch.tokens:
            return 0.0
        self.model.set_length(self.config.seq)
        around = lambda _: lower_precision(self.config)
        return self.pipeline.evaluate(batch.tokens, batch.targets, around)

    @no_grad()
    def generate(self, prompt: np.ndarray, *how: Any) -> np.ndarray:
        """GPT.generate through all stages: every rank calls it and draws the same tokens."""
        tokens, *rest, context = how

        def follow(window: np.ndarray) -> Tensor:
            self.model.set_length(window.shape[1])
            states = self.pipeline.forward([Tensor(window).to(self.config.device)])
            logits = np.empty(self.model.config.vocab)
            if states is not None:  # the rank of the last stage
                whole = communication.gather(self.model.logits(states[0]), self.model.tp, -1)
                logits = whole[0, -1].cpu().double().data
            last = self.pipeline.last
            return Tensor(broadcast(self.pipeline.comm, logits, root=last, label="logits"))

        return continued(follow, prompt, tokens, context, *rest)


def lower_precision(c: TrainConfig) -> Any:
    """Autocast for a forward, if --precision asks for 16 bits."""
    if c.precision == "full":
        return contextlib.nullcontext()
    return autocast(c.device, c.precision, True)


def place(c: TrainConfig, batch: Batch, i: int) -> tuple[int, int, int]:
    """The key of a micro-batch's dropout masks: seed, step, and the global number of its row."""
    return c.seed, batch.step, batch.samples[i]


def no_sync(reducer: Any) -> Any:
    """Keep the gradients of all micro-batches but the last on this rank.

    ZeRO is left out: its stages 2 and 3 exist in order not to keep whole gradients, so they sum
    after each micro-batch, and its stage 1 sums after the last one anyway.
    """
    return contextlib.nullcontext() if isinstance(reducer, Zero) else reducer.no_sync()


def sums_partial_early(c: TrainConfig) -> bool:
    """Whether gradients leave while backward still runs (ZeRO-2 and 3, overlapped).

    Partial gradients of sequence parallelism must then be completed by a hook, before they leave.
    """
    return c.zero > 1 or (c.zero == 0 and c.sync == "overlapped")
