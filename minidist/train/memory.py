"""What each rank holds: predicted by the formulas, and counted from the arrays that are there."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from ..autograd.tape import Node
from ..comm import Communicator, all_gather_bytes, shard_bounds, shard_range
from ..parallel.pipeline.actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action
from ..parallel.pipeline.run.runtime import Pipeline, Run
from ..parallel.zero.flat import bytes_by_use
from ..parallel.zero.optimizer import Zero
from ..plan.gpt import activation_bytes
from ..plan.tape import kept_behind
from ..plan.zero import StateBytes, rank_bytes

if TYPE_CHECKING:
    from .loop import Trainer

KINDS = ("parameters", "gradients", "optimizer")
SHOWN = 8  # ranks


def predicted(trainer: Trainer) -> dict[str, int]:
    """Bytes by the formulas: ZeRO's of each buffer, and what the GPT's forward keeps."""
    c, zero = trainer.config, trainer.optimizer
    size = np.dtype(c.dtype).itemsize
    each = StateBytes(size, size, 2 * size)  # Adam's two moments
    buffers = [sum(p.numel() for p in trainer.model.parameters())]
    if isinstance(zero, Zero):
        buffers = [flat.edges[-1] for flat in zero.flats]
    held = [rank_bytes(c.zero, n, trainer.dp.size, trainer.dp.rank, each) for n in buffers]
    found = {kind: int(sum(getattr(h, kind) for h in held)) for kind in KINDS}
    if c.precision == "full" and not trainer.pipeline.schedule.is_split:
        found["activations"] = _activations(trainer, size)
    return found


def _activations(trainer: Trainer, size: int) -> int:
    """The most that micro-batches hold at once, by the schedule: each from its F to its B."""
    c, schedule = trainer.config, trainer.pipeline.schedule
    rows = len(range(*shard_range(c.batch, trainer.dp.size, trainer.dp.rank)))
    counts = [b - a for a, b in shard_bounds(rows, schedule.microbatches)]
    has, held, most = trainer.model.shares(c.seq), 0, 0
    for action in schedule.actions(trainer.pp.rank):
        if action.kind in (FORWARD, BACKWARD):
            part = trainer.layers[action.stage]
            each = activation_bytes(
                trainer.model.config, counts[action.microbatch], c.seq, size, has, part
            )
            held += each if action.kind == FORWARD else -each
            most = max(most, held)
    return most


class Peak:
    """The most bytes that a pipeline's graphs keep for backward at once, counted as it runs.

    Between I and W a micro-batch holds what its weights' gradients need.
    """

    def __init__(self, pipeline: Pipeline):
        self.pipeline, self.held, self.most = pipeline, {}, 0  # type: ignore[var-annotated]
        pipeline.watch = self

    def __call__(self, run: Run, action: Action) -> None:
        place = action.stage, action.microbatch
        if action.kind == FORWARD:
            node = run.graphs[place][0]
            self.held[place] = _bytes([] if node is None else [node])
        elif action.kind == INPUT:
            self.held[place] = _bytes(node for node, _ in run.deferred[place].roots)
        elif action.kind in (BACKWARD, WEIGHT):
            self.held.pop(place)
        self.most = max(self.most, sum(self.held.values()))

    def end(self) -> int:
        self.pipeline.watch = None
        return self.most


def _bytes(nodes: Iterable[Node]) -> int:
    return sum(array.nbytes for _, array in kept_behind(nodes))


def counted(trainer: Trainer) -> dict[str, int]:
    """Bytes of the arrays that this rank has, between a step and the next forward."""
    if isinstance(trainer.optimizer, Zero):
        return trainer.optimizer.nbytes()
    return bytes_by_use(trainer.model.parameters(), trainer.optimizer.state)


def table(comm: Communicator, mine: dict[str, int], found: dict[str, int]) -> Table:
    """A row a rank, the formula's bytes and those counted; all ranks call it."""
    rows = [json.loads(t) for t in all_gather_bytes(comm, json.dumps([mine, found]).encode())]
    title = "bytes a rank (=: as the formulas say; else formula / counted)"
    drawn = Table("rank", *KINDS, "activations", title=title, box=None)
    shown = range(comm.size) if comm.size <= SHOWN else (0, 1, comm.size - 1)
    for rank in shown:
        formula, count = rows[rank]
        cells = [_cell(formula.get(kind), count[kind]) for kind in (*KINDS, "activations")]
        drawn.add_row(str(rank), *cells)
    return drawn


def _cell(formula: int | None, count: int) -> str:
    if formula is None or formula == count:
        return f"{count:,}" + ("" if formula is None else " =")
    return f"{formula:,} / {count:,}"
