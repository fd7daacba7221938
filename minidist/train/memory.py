"""What each rank holds: predicted by the formulas, and counted from the arrays that are there."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from rich.table import Table

from ..comm import Communicator, shard_range
from ..comm.texts import share
from ..parallel.flat import bytes_held
from ..parallel.zero import Zero
from ..plan.gpt import activation_bytes
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
    if c.precision == "full":
        rows = len(range(*shard_range(c.batch, trainer.dp.size, trainer.dp.rank)))
        found["activations"] = activation_bytes(
            trainer.model.config, rows, c.seq, size, trainer.model.shares(c.seq)
        )
    return found


def counted(trainer: Trainer) -> dict[str, int]:
    """Bytes of the arrays that this rank has, between a step and the next forward."""
    if isinstance(trainer.optimizer, Zero):
        return trainer.optimizer.nbytes()
    return bytes_held(trainer.model.parameters(), trainer.optimizer.state)


def table(comm: Communicator, mine: dict[str, int], found: dict[str, int]) -> Table:
    """A row a rank, the formula's bytes and those counted; all ranks call it."""
    rows = [json.loads(t) for t in share(comm, json.dumps([mine, found]).encode())]
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
