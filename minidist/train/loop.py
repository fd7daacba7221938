"""The training loop: the same text on one rank or many, simulated or MPI."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import cuda, data, random
from ..amp import GradScaler, autocast
from ..array import keep_heap
from ..autograd import no_grad
from ..comm import Communicator, all_reduce, local_rank, shard_range
from ..errors import UserError
from ..models.gpt import GPT
from ..optim import AdamW, warmup_cosine
from ..parallel.clip import clip_grad_norm_
from ..parallel.data import Bucketed, Naive, Synchronizer, broadcast_parameters
from ..parallel.layout import sharded
from ..parallel.overlap import Overlapped
from ..parallel.sequence import partial_parameters, sum_partial, sum_partial_early
from ..parallel.zero import Zero
from ..parallel.zero3 import Zero3
from ..plan.tape import saved_bytes
from ..tensor import Tensor
from .config import TrainConfig
from .memory import counted

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
        self.dp, self.tp = mesh.group(self.comm, "dp"), mesh.group(self.comm, "tp")
        self.model = GPT(c.gpt(data.VOCAB), c.seed, self.tp, c.sequence_parallel)
        if c.dtype != "float32":
            self.model.to(c.dtype)
            self.model.reset_parameters(c.seed)
        self.model.to(c.device)
        broadcast_parameters(self.model, self.dp)
        self.shared_out = {id(p) for p in sharded(self.model)}
        self.early = c.zero > 1 or (c.zero == 0 and c.sync == "overlapped")
        if c.sequence_parallel and self.early:  # before the hooks that take gradients away
            sum_partial_early(partial_parameters(self.model), self.tp)
        self.held: dict[str, int] | None = None  # bytes, counted in the first step
        self.gradients: Any = self._shared_states() if c.zero else self._own_states()
        self.scaler = GradScaler(enabled=c.precision == "float16", comm=self.comm)
        self.halves = autocast(c.device, c.precision, True) if c.precision != "full" else None

    def _own_states(self) -> Synchronizer:
        """Every rank has all of the optimiser's states."""
        c, params = self.config, list(self.model.parameters())
        groups = decay_groups(self.model, c.weight_decay)
        self.optimizer: Any = AdamW(groups, **self._adam())  # or Zero, which is used alike
        if c.sync == "naive":
            return Naive(params, self.dp, c.allreduce)
        kind = Overlapped if c.sync == "overlapped" else Bucketed
        return kind(params, self.dp, int(c.bucket_mib * 2**20), c.allreduce)

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
            params = list(self.model.parameters())
            mine = [p for p in params if id(p) in self.shared_out]
            return clip_grad_norm_(params, self.config.clip, self.tp, mine)
        pieces = self.optimizer.pieces
        mine = [piece.own for piece in pieces if id(piece.param) in self.shared_out]
        own = [piece.own for piece in pieces]
        return clip_grad_norm_(own, self.config.clip, self.tp, mine, self.dp)

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
        with random.at(c.seed, step, first):
            total = self._loss(x, y)
        # Divided by the global count: the sum over ranks is the global mean, rows uneven or not.
        loss = total / (c.batch * c.seq)
        measures = self.held is None
        if measures:
            kept = sum(saved_bytes(loss).values())
        self.scaler.scale(loss).backward()
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
        if measures:
            self.held = {**counted(self), "activations": kept}
        self.optimizer.zero_grad()
        scale = {"scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}
        return {
            "loss": self._sum(loss.item())[0], "grad_norm": norm.item(), "lr": lr, **scale
        }  # fmt: skip

    def _loss(self, x: np.ndarray, y: np.ndarray) -> Tensor:
        """The sum of the losses of rows of tokens, from wherever the model is."""
        inputs, targets = (Tensor(a).to(self.config.device) for a in (x, y))
        with self.halves or contextlib.nullcontext():
            return self.model.loss(inputs, targets, reduction="sum")

    def _sum(self, *numbers: float) -> list[float]:
        """Sums over the data-parallel ranks; what tensor-parallel ones have is whole already."""
        return all_reduce(self.dp, np.array(numbers, np.float64), algorithm="ring").tolist()

    @no_grad()
    def evaluate(self) -> float:
        """Mean loss on held-out windows in nats a byte; each rank takes its share of them."""
        seq = self.config.seq
        starts = data.held_out_starts(self.corpus, seq, EVAL_WINDOWS)
        first, last = shard_range(len(starts), self.dp.size, self.dp.rank)
        self.model.eval()
        total = 0.0
        for at in range(first, last, EVAL_ROWS):
            mine = starts[at : min(at + EVAL_ROWS, last)]
            total += self._loss(*data.windows(self.corpus.held_out, mine, seq)).item()
        self.model.train()
        loss, count = self._sum(total, (last - first) * seq)
        return loss / count

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
