"""The training loop: the same text on one rank or many, simulated or MPI."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import data
from ..amp import GradScaler, autocast
from ..autograd.modes import no_grad
from ..comm import Communicator, all_reduce, local_rank, shard_bounds, shard_range
from ..errors import UserError
from ..models.gpt import GPT
from ..nn import Parameter
from ..optim import AdamW, warmup_cosine
from ..parallel.clip_grad import clip_grad_norm_
from ..parallel.data import Bucketed, Naive, Overlapped, Synchronizer, broadcast_parameters
from ..parallel.layout import sharded_parameters
from ..parallel.pipeline.run.runtime import Pipeline
from ..parallel.sequence import partial_parameters, sum_partial, sum_partial_early
from ..parallel.zero.optimizer import Zero
from ..parallel.zero.stage3 import Zero3
from ..tensor import cuda, random
from ..tensor.dtypes import keep_heap
from ..tensor.tensor import Tensor
from .config import TrainConfig
from .memory import Peak, counted
from .stages import generate, layers_of, make_model, make_pipeline, microbatches, rows_of

EVAL_WINDOWS = 256  # of the held-out text, evenly spread
EVAL_ROWS = 16  # windows in one forward pass


def decay_groups(model: GPT, weight_decay: float) -> list[dict[str, Any]]:
    """Matrices are decayed; biases and norm scales are not."""
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


@dataclass
class Trainer:
    """What a rank holds: the model, its optimiser, and its rows of every global batch."""

    config: TrainConfig
    comm: Communicator
    corpus: data.Corpus

    def __post_init__(self) -> None:
        keep_heap()
        c = self.config
        if c.device == "cuda":
            cuda.set_device(local_rank() % cuda.device_count())
        mesh = c.mesh(self.comm.size)
        self.pp, self.dp, self.tp = (mesh.group(self.comm, axis) for axis in ("pp", "dp", "tp"))
        self.model, self.pipeline = self._stages()
        broadcast_parameters(self.model, self.dp)
        self.shared_out = {id(p) for p in sharded_parameters(self.model)}
        self.early = c.zero > 1 or (c.zero == 0 and c.sync == "overlapped")
        if c.sequence_parallel and self.early:  # before the hooks that take gradients away
            sum_partial_early(partial_parameters(self.model), self.tp)
        self.held: dict[str, int] | None = None  # bytes, counted in the first step
        self.gradients: Any = self._shared_states() if c.zero else self._own_states()
        self.pipeline.gradients = None if c.zero else self.gradients
        self.scaler = GradScaler(enabled=c.precision == "float16", comm=self.comm)
        self.halves = autocast(c.device, c.precision, True) if c.precision != "full" else None

    def _stages(self) -> tuple[GPT, Pipeline]:
        """This rank's stages; without pipeline parallelism one stage, which is the model."""
        schedule = self.config.pipeline()
        self.layers = layers_of(self.config, data.VOCAB, schedule)
        mine = [self.layers[stage] for stage in schedule.stages_of(self.pp.rank)]
        model = make_model(self.config, data.VOCAB, self.tp, mine)
        if schedule.microbatches > 1 and self.config.zero < 2:
            model.part_head()
        return model, make_pipeline(model, self.layers, self.pp, schedule)

    def _own_states(self) -> Synchronizer:
        """Every rank has all of the optimiser's states."""
        c, params = self.config, list(self.model.parameters())
        groups = decay_groups(self.model, c.weight_decay)
        self.optimizer: Any = AdamW(groups, **self._adam())  # or Zero, which is used alike
        if c.sync == "naive":
            return Naive(params, self.dp, c.allreduce)
        size = int(c.bucket_mib * 2**20)
        if c.sync == "bucketed":
            return Bucketed(params, self.dp, size, c.allreduce)
        return Overlapped(params, self.dp, size, c.allreduce, late=self._completed_late())

    def _completed_late(self) -> list[Parameter]:
        """Parameters whose gradient is not whole after a backward: other stages have a part."""
        head = [self.model.wte.weight] if self.model.head else []
        return [*head, *(p for _, params in self.pipeline.tied.groups for p in params)]

    def _shared_states(self) -> Zero:
        """ZeRO is the optimiser, and sums the gradients."""
        c, groups = self.config, decay_groups(self.model, self.config.weight_decay)
        args: Any = (self.model, self.dp, AdamW, groups)
        options: dict[str, Any] = {"algorithm": c.allreduce, **self._adam()}
        if c.zero < 3:
            options |= {"stage": c.zero, "bucket_bytes": int(c.bucket_mib * 2**20)}
        self.optimizer = (Zero if c.zero < 3 else Zero3)(*args, **options)
        return self.optimizer

    def _adam(self) -> dict[str, Any]:
        return {"lr": self.config.lr, "betas": (0.9, 0.95)}

    def _clip(self) -> Tensor:
        """Clip by the norm of the whole gradient, of which this rank may have pieces of parts."""
        if not isinstance(self.optimizer, Zero):
            pairs, shards = [(p, p) for p in self.model.parameters()], None
        else:
            pairs, shards = [(piece.own, piece.param) for piece in self.optimizer.pieces], self.dp
        twice = {id(p) for p in self.pipeline.tied.counted}
        return clip_grad_norm_(
            [own for own, _ in pairs], self.config.clip, self.tp,
            [own for own, p in pairs if id(p) in self.shared_out], shards,
            self.pp, [own for own, p in pairs if id(p) in twice],
        )  # fmt: skip

    def rows(self, step: int) -> tuple[np.ndarray, np.ndarray, int]:
        """This rank's inputs and targets of a global batch, and the number of its first row."""
        c = self.config
        starts = data.training_starts(self.corpus, c.seq, c.batch, c.seed, step)
        first, last = shard_range(c.batch, self.dp.size, self.dp.rank)
        return *data.windows(self.corpus.train, starts[first:last], c.seq), first

    def step(self, step: int) -> dict[str, float]:
        """One optimiser step (numbered from 0): {"loss": global mean, "grad_norm", "lr"}."""
        c = self.config
        x, y, first = self.rows(step)
        bounds = shard_bounds(len(x), self.pipeline.schedule.microbatches)
        peak = Peak(self.pipeline) if self.held is None else None

        @contextlib.contextmanager
        def around(i: int) -> Iterator[None]:
            with self._halves(), random.at(c.seed, step, first + bounds[i][0]):
                yield

        # Divided by the global count: the sum over ranks is the global mean, rows uneven or not.
        count = c.batch * c.seq
        self.model.expect(c.seq)
        inputs, targets = (microbatches(a, bounds, c.device) for a in (x, y))
        total = self.pipeline.step(inputs, targets, around, self.scaler.get_scale() / count)
        self.model.join_head()
        if c.sequence_parallel and not self.early:
            sum_partial(partial_parameters(self.model), self.tp)
        self.gradients.sum_gradients()
        self.scaler.unscale_(self.optimizer)
        norm = self._clip()
        lr = warmup_cosine(step, c.steps, c.warmup, c.lr, c.lr * c.final_lr)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.scaler.step(self.optimizer)
        self.scaler.update()
        if peak is not None:
            self.held = {**counted(self), "activations": peak.end()}
        self.optimizer.zero_grad()
        scale = {"scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}
        return {
            "loss": self._sum(total / count)[0], "grad_norm": norm.item(), "lr": lr, **scale
        }  # fmt: skip

    def _halves(self, _: int = 0) -> Any:
        return self.halves or contextlib.nullcontext()

    def _sum(self, *numbers: float) -> list[float]:
        """Sums over the data-parallel ranks; what tensor-parallel ones have is whole already."""
        return all_reduce(self.dp, np.array(numbers, np.float64), algorithm="ring").tolist()

    @no_grad()
    def evaluate(self) -> float:
        """Mean loss on held-out windows in nats a byte; each rank takes its share of them."""
        seq = self.config.seq
        starts = data.held_out_starts(self.corpus, seq, EVAL_WINDOWS)
        first, last = shard_range(len(starts), self.dp.size, self.dp.rank)
        windows = data.windows(self.corpus.held_out, starts[first:last], seq)
        bounds = rows_of(last - first, EVAL_ROWS)
        inputs, targets = (microbatches(a, bounds, self.config.device) for a in windows)
        self.model.eval()
        self.model.expect(seq)
        total = self.pipeline.evaluate(inputs, targets, self._halves) if bounds else 0.0
        self.model.train()
        loss, count = self._sum(total, (last - first) * seq)
        return loss / count

    def sample(self, prompt: np.ndarray, *how: Any) -> np.ndarray | None:
        """A prompt continued, on the first replica's ranks (with ZeRO-3 all); None on others."""
        if self.dp.rank and self.config.zero < 3:
            return None
        self.model.eval()
        text = generate(self.pipeline, self.model, prompt, self.config.device, *how)
        self.model.train()
        return text

    def run(self, first: int, tokens: int) -> Iterator[dict[str, Any]]:
        """Steps first + 1 … config.steps, one record each; the loss is from before the update."""
        c = self.config
        for step in range(first, c.steps):
            start = time.perf_counter()
            measured = self.step(step)
            if not math.isfinite(measured["loss"]):
                raise UserError(
                    f"loss is {measured['loss']} at step {step + 1}: training diverged; lower --lr "
                    f"(now {c.lr}) or --clip (now {c.clip}), or lengthen --warmup (now {c.warmup})"
                )
            tokens += c.batch * c.seq
            rate = c.batch * c.seq / (time.perf_counter() - start)
            yield {"step": step + 1, **measured, "tokens": tokens, "tokens_per_s": round(rate, 1)}
