"""The training loop: builds a rank's model and its step, and yields one record per step.

The text is the same on one rank or many, simulated or MPI.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from .. import data
from ..amp import GradScaler
from ..comm import Communicator, all_reduce, local_rank, shard_bounds, shard_range
from ..errors import UserError
from ..kernels import arrays as xp
from ..models.gpt import GPT
from ..optim import AdamW, warmup_cosine
from ..parallel.data import Bucketed, Naive, Overlapped, Synchronizer
from ..parallel.pipeline.actions import Schedule
from ..parallel.pipeline.cut import balance, ranges
from ..parallel.sequence import partial_parameters, sum_partial_early
from ..parallel.zero.optimizer import Zero
from ..parallel.zero.stage3 import Zero3
from ..plan.flops import layer_costs
from ..tensor import cuda
from ..tensor.dtypes import keep_heap
from ..tensor.tensor import Tensor
from .config import TrainConfig
from .memory import Peak, counted
from .report import HIGHEST_LOSS
from .step import Accumulation, Batch, Pipelined, TrainStep, sums_partial_early

EVAL_WINDOWS = 256  # of the held-out text, evenly spread
EVAL_ROWS = 16  # windows in one forward pass


@dataclass
class Trainer:
    """A rank's model, optimizer and step, and its rows of every global batch."""

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
        self.schedule = c.pipeline()
        self.layers = stage_layers(c, data.VOCAB, self.schedule)
        own = [i for s in self.schedule.stages_of(self.pp.rank) for i in self.layers[s]]
        self.model = make_model(c, data.VOCAB, self.tp, own)
        if self.schedule.microbatches > 1 and c.zero < 2:
            self.model.part_head()  # so that one stage and many add up in the same order
        self.passes: Accumulation | Pipelined = (
            Accumulation(c, self.model)
            if self.schedule.stages == 1
            else Pipelined(c, self.model, self.layers, self.pp, self.schedule)
        )
        # These hooks come first: those of ZeRO and Overlapped take the gradients away.
        if c.sequence_parallel and sums_partial_early(c):
            sum_partial_early(partial_parameters(self.model), self.tp)
        self.optimizer: Any  # AdamW, or Zero, which is used in the same way
        self.reducer: Any  # sums gradients over the replicas
        self.optimizer, self.reducer = self._zero() if c.zero else self._replicated()
        self.scaler = GradScaler(enabled=c.precision == "float16", comm=self.comm)
        self.train_step = TrainStep(
            c, self.model, self.passes, self.optimizer, self.reducer, self.scaler,
            (self.pp, self.dp, self.tp),
        )  # fmt: skip
        self.counted_bytes: dict[str, int] | None = None  # of this rank, counted in the first step
        self.wants_to_stop: Callable[[], bool] = lambda: False  # called once per step on every rank
        self.stops = False  # whether a rank asked to stop in the last step

    def _replicated(self) -> tuple[AdamW, Synchronizer]:
        """Every replica has the whole optimizer, and sums its gradients with the others."""
        c, model = self.config, self.model
        optimizer = AdamW(decay_groups(self.model, c.weight_decay), **adam_options(c))
        if c.sync != "overlapped":  # its buckets hold the gradients themselves
            optimizer.flatten_parameters()
        if c.sync == "naive":
            return optimizer, Naive(model, self.dp, c.allreduce)
        size = int(c.bucket_mib * 2**20)
        if c.sync == "bucketed":
            return optimizer, Bucketed(model, self.dp, size, c.allreduce)
        # These gradients are not complete when backward ends, so they are sent later.
        late = [*([self.model.wte.weight] if self.model.head else []), *self.passes.late]
        return optimizer, Overlapped(model, self.dp, size, c.allreduce, late=late)

    def _zero(self) -> tuple[Zero, Zero]:
        """ZeRO is both: an optimizer that is split over the replicas, and their reducer."""
        c = self.config
        options: dict[str, Any] = {"algorithm": c.allreduce, **adam_options(c)}
        if c.zero < 3:
            options |= {"stage": c.zero, "bucket_bytes": int(c.bucket_mib * 2**20)}
        groups = decay_groups(self.model, c.weight_decay)
        zero = (Zero if c.zero < 3 else Zero3)(self.model, self.dp, AdamW, groups, **options)
        return zero, zero

    def batch(self, step: int) -> Batch:
        """This rank's rows of the global batch of a step (numbered from 0), as micro-batches."""
        c = self.config
        starts = data.training_starts(self.corpus, c.seq, c.batch, c.seed, step)
        first, last = shard_range(c.batch, self.dp.size, self.dp.rank)
        x, y = data.windows(self.corpus.train, starts[first:last], c.seq)  # (rows, s) each
        bounds = shard_bounds(len(x), self.schedule.microbatches)
        tokens, targets = (microbatches(a, bounds, c.device) for a in (x, y))
        return Batch(tokens, targets, c.batch * c.seq, step, [first + at for at, _ in bounds])

    def step(self, step: int) -> dict[str, float]:
        """One optimizer step (numbered from 0): {"loss": global mean, "grad_norm", "lr"}."""
        c, batch = self.config, self.batch(step)
        lr = warmup_cosine(step, c.steps, c.warmup, c.lr, c.lr * c.final_lr)
        self.passes.peak = Peak() if self.counted_bytes is None else None
        loss_sum, norm = self.train_step(batch, lr)
        if self.passes.peak is not None:  # while the gradients are there
            held = counted(self.model, self.optimizer)
            self.counted_bytes = {**held, "activations": self.passes.peak.most}
        self.optimizer.zero_grad()
        scale = {"scale": self.scaler.get_scale()} if self.scaler.is_enabled() else {}
        loss, stops = self._sum(loss_sum / batch.count, float(self.wants_to_stop()))
        self.stops = self._any(bool(stops), self.tp, self.pp)
        return {"loss": loss, "grad_norm": norm.item(), "lr": lr, **scale}

    def _sum(self, *numbers: float) -> list[float]:
        """Sums over the replicas; the ranks of one replica have the same numbers already."""
        return all_reduce(self.dp, np.array(numbers, np.float64), algorithm="ring").tolist()

    def _any(self, flag: bool, *groups: Communicator) -> bool:
        """Whether any rank of these groups has set the flag; all of them call this."""
        for group in groups:
            flag = bool(all_reduce(group, np.array([flag], np.int64), "max", algorithm="ring")[0])
        return flag

    def evaluate(self, most: int = EVAL_WINDOWS) -> float:
        """Mean loss on held-out windows in nats a byte; each replica takes its share of them."""
        seq = self.config.seq
        starts = data.held_out_starts(self.corpus, seq, most)
        first, last = shard_range(len(starts), self.dp.size, self.dp.rank)
        x, y = data.windows(self.corpus.held_out, starts[first:last], seq)  # (rows, s) each
        # ZeRO-3 gathers in every forward, so a replica with fewer rows adds a forward of 0 rows
        longest = -(-len(starts) // self.dp.size) if self.config.zero == 3 else len(x)
        bounds = [(at, min(at + EVAL_ROWS, len(x))) for at in range(0, longest, EVAL_ROWS)]
        tokens, targets = (microbatches(a, bounds, self.config.device) for a in (x, y))
        self.model.eval()
        total = self.passes.evaluate(Batch(tokens, targets))
        self.model.train()
        loss, count = self._sum(total, (last - first) * seq)
        return loss / count

    def check_loss(self, name: str, loss: float, step: int) -> None:
        """Raise a UserError if this loss (equal on all ranks) shows that the model diverged."""
        if not loss < HIGHEST_LOSS:  # nan too
            self._diverged(f"{name} is {loss:.6g} at step {step}")

    def check_weights(self, step: int) -> None:
        """Raise a UserError on every rank if a weight on any rank is not finite."""
        pieces = self.optimizer.pieces if self.config.zero else []
        own = [piece.own for piece in pieces] or self.model.parameters()
        bad = not all(bool(xp.isfinite(p.data).all()) for p in own)
        if self._any(bad, self.dp, self.tp, self.pp):
            self._diverged(f"weights are not finite after step {step}")

    def _diverged(self, what: str) -> NoReturn:
        c = self.config
        clip = f"lower --lr (now {c.lr}) or --clip (now {c.clip})"
        no_clip = f"lower --lr (now {c.lr}), clip the gradient (--clip 1; now off)"
        raise UserError(
            f"{what}: training diverged; {clip if c.clip else no_clip}, or lengthen --warmup "
            f"(now {c.warmup})"
        )

    def sample(self, prompt: np.ndarray, *how: Any) -> np.ndarray | None:
        """A prompt continued, on the first replica's ranks (with ZeRO-3 all); None on others."""
        if self.dp.rank and self.config.zero < 3:
            return None
        self.model.eval()
        text = self.passes.generate(prompt, *how, self.config.seq)
        self.model.train()
        return text

    def run(self, first: int, tokens: int) -> Iterator[dict[str, Any]]:
        """Steps first + 1 … config.steps, one record each; the loss is from before the update."""
        c = self.config
        for step in range(first, c.steps):
            start = time.perf_counter()
            measured = self.step(step)
            self.check_loss("loss", measured["loss"], step + 1)
            tokens += c.batch * c.seq
            rate = c.batch * c.seq / (time.perf_counter() - start)
            yield {"step": step + 1, **measured, "tokens": tokens, "tokens_per_s": round(rate, 1)}


def stage_layers(c: TrainConfig, vocab: int, schedule: Schedule) -> list[range]:
    """The layers of each stage: as --split says, or balanced by FLOPs."""
    config, stages = c.gpt(vocab), schedule.stages
    split = c.split or balance(layer_costs(config, c.seq), stages, schedule.rank_of)
    return ranges(config.layers, stages, split)


def make_model(c: TrainConfig, vocab: int, tp: Communicator, layers: list[int]) -> GPT:
    """The GPT with these layers, whose weights depend on the seed and their names alone."""
    model = GPT(c.gpt(vocab), c.seed, tp, c.sequence_parallel, layers)
    if c.dtype != "float32":
        model.to(c.dtype)
        model.reset_parameters(c.seed)  # drawn again, with all digits of this dtype
    model.to(c.device)
    return model


def decay_groups(model: GPT, weight_decay: float) -> list[dict[str, Any]]:
    """Parameter groups of AdamW: matrices are decayed; biases and norm scales are not."""
    params = list(model.parameters())
    return [
        {"params": [p for p in params if p.ndim >= 2], "weight_decay": weight_decay},
        {"params": [p for p in params if p.ndim < 2], "weight_decay": 0.0},
    ]


def adam_options(c: TrainConfig) -> dict[str, Any]:
    return {"lr": c.lr, "betas": (0.9, 0.95)}


def microbatches(x: np.ndarray, bounds: list[tuple[int, int]], device: str) -> list[Tensor]:
    """Rows of x as Tensors on the device, each with memory of its own: none keeps the whole x."""
    return [Tensor(x[first:last].copy()).to(device) for first, last in bounds]
