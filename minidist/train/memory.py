"""The bytes of a rank: predicted by the formulas of plan/, and counted from its arrays."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np
from rich.table import Table

from ..autograd.tape import Node
from ..comm import Communicator, all_gather_bytes, shard_bounds, shard_range
from ..models.gpt import GPT
from ..parallel.pipeline.actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action, Schedule
from ..parallel.pipeline.run.runtime import Run
from ..parallel.zero.flat import bytes_by_use
from ..parallel.zero.optimizer import Zero
from ..plan.gpt import activation_bytes
from ..plan.tape import kept_behind
from ..plan.zero import StateBytes, rank_bytes
from .config import TrainConfig

KINDS = ("parameters", "gradients", "optimizer")
SHOWN = 8  # ranks


def predicted(
    c: TrainConfig, model: GPT, optimizer: Any, layers: list[range], dp: Communicator,
    pp: Communicator,
) -> dict[str, int]:  # fmt: skip
    """Bytes of each kind by the formulas: ZeRO's for the states, and the GPT's activations.

    `layers` are those of every stage. Activations are left out where no formula exists: in 16 bits,
    and where a schedule computes the gradients of inputs and weights apart.
    """
    size = np.dtype(c.dtype).itemsize
    each = StateBytes(size, size, 2 * size)  # Adam's two moments
    buffers = [sum(p.numel() for p in model.parameters())]
    if isinstance(optimizer, Zero):
        buffers = [flat.edges[-1] for flat in optimizer.flats]
    states = [rank_bytes(c.zero, n, dp.size, dp.rank, each) for n in buffers]
    found = {kind: int(sum(getattr(state, kind) for state in states)) for kind in KINDS}
    schedule = c.pipeline()
    if c.precision == "full" and not schedule.is_split:
        rows = len(range(*shard_range(c.batch, dp.size, dp.rank)))
        found["activations"] = _activations(c, model, schedule, layers, rows, pp.rank)
    return found


def _activations(
    c: TrainConfig, model: GPT, schedule: Schedule, layers: list[range], rows: int, rank: int
) -> int:
    """The most bytes of activations at once: those of a micro-batch last from its F to its B."""
    counts, size = [b - a for a, b in shard_bounds(rows, schedule.microbatches)], c.dtype
    shares, held, most = model.shares(c.seq), 0, 0
    nbytes = lambda stage, i: activation_bytes(
        model.config, counts[i], c.seq, np.dtype(size).itemsize, shares, layers[stage]
    )
    if schedule.stages == 1:  # one micro-batch after the other, whatever the schedule's name
        return max(nbytes(0, i) for i in range(len(counts)))
    for action in schedule.actions(rank):
        if action.kind in (FORWARD, BACKWARD):
            each = nbytes(action.stage, action.microbatch)
            held += each if action.kind == FORWARD else -each
            most = max(most, held)
    return most


class Peak:
    """The most bytes that graphs keep for backward at the same time, counted as a step runs."""

    def __init__(self) -> None:
        self.held: dict[Any, int] = {}  # bytes of each (stage, micro-batch) that is kept
        self.most = 0

    def keep(self, place: Any, nodes: Iterable[Node | None]) -> None:
        """From now on `place` keeps what the graphs behind these nodes keep."""
        roots = [node for node in nodes if node is not None]
        self.held[place] = sum(array.nbytes for _, array in kept_behind(roots))
        self.most = max(self.most, sum(self.held.values()))

    def watch(self, run: Run, action: Action) -> None:
        """Called by a pipeline after each action."""
        place = action.stage, action.microbatch
        if action.kind == FORWARD:
            self.keep(place, [run.graphs[place][0]])
        elif action.kind == INPUT:  # only what the gradients of the weights need is left
            self.keep(place, [node for node, _ in run.deferred[place].roots])
        elif action.kind in (BACKWARD, WEIGHT):
            self.held.pop(place)


def counted(model: GPT, optimizer: Any) -> dict[str, int]:
    """Bytes of the arrays that this rank has, between a step and the next forward."""
    if isinstance(optimizer, Zero):
        return optimizer.nbytes()
    return bytes_by_use(model.parameters(), optimizer.state)


def table(comm: Communicator, formulas: dict[str, int], counts: dict[str, int]) -> Table:
    """A row for each rank: the formulas' bytes and those counted. All ranks call it."""
    rows = [json.loads(t) for t in all_gather_bytes(comm, json.dumps([formulas, counts]).encode())]
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
