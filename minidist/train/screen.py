"""The screen of rank 0: start table, live bar or lines, memory table, end and sample of a run.

Training does not depend on this file.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from .. import data
from ..comm import Ledger
from ..plan.gpt import gpt_parameters
from . import memory
from .config import TrainConfig
from .loop import Trainer
from .report import perplexity_line

SECONDS_BETWEEN_LINES = 5.0


def console() -> Console:
    """A console that draws on a terminal, also through mpirun, which gives its ranks a pipe."""
    terminal = sys.stdout.isatty() or _launcher_has_terminal()
    return Console(force_terminal=terminal, highlight=False, soft_wrap=not terminal)


def _launcher_has_terminal() -> bool:
    """Whether an mpirun above this process writes to a terminal (known on Linux, from /proc)."""
    pid = os.getpid()
    try:
        while pid > 1:
            stat = Path(f"/proc/{pid}/stat").read_text()
            name, rest = stat.split("(", 1)[1].rsplit(")", 1)
            if name.startswith(("mpirun", "mpiexec", "prterun")):
                return os.readlink(f"/proc/{pid}/fd/1").startswith("/dev/pts/")
            pid = int(rest.split()[1])
    except (OSError, ValueError, IndexError):
        pass
    return False


class Bar:
    """Shows step, loss, tokens a second and time left; use as a context manager."""

    def __init__(self, screen: Console, steps: int, done: int):
        self.screen, self.steps, self.last = screen, steps, 0.0
        self.progress = Progress(
            TextColumn("step {task.completed:>4.0f}/{task.total:.0f}"),
            BarColumn(bar_width=20),
            TextColumn("loss {task.fields[loss]:.4f}  {task.fields[rate]:,.0f} tokens/s"),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=screen,
        )
        self.task = self.progress.add_task("", total=steps, completed=done, loss=0.0, rate=0.0)
        self.started, self.done_before, self.rate = time.monotonic(), done, 0.0

    def __enter__(self) -> Bar:
        if self.screen.is_terminal:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.screen.is_terminal:
            self.progress.stop()

    def show(self, record: dict[str, Any]) -> None:
        step, loss, rate = record["step"], record["loss"], self._smooth(record["tokens_per_s"])
        if self.screen.is_terminal:
            self.progress.update(self.task, completed=step, loss=loss, rate=rate)
        elif self._due(step):
            left = (time.monotonic() - self.started) / (step - self.done_before)
            left *= self.steps - step
            self.screen.print(
                f"step {step:>4}/{self.steps}  loss {loss:.4f}  {rate:>7,.0f} tokens/s  "
                f"{left:4.0f} s left"
            )

    def _smooth(self, rate: float) -> float:
        """A running mean: single steps jump too much to be read."""
        self.rate = rate if not self.rate else 0.9 * self.rate + 0.1 * rate
        return self.rate

    def _due(self, step: int) -> bool:
        now = time.monotonic()
        if now - self.last < SECONDS_BETWEEN_LINES and step not in (
            self.done_before + 1,
            self.steps,
        ):
            return False
        self.last = now
        return True


def show_start(screen: Console, trainer: Trainer, out: Path, done: int) -> None:
    """A table: the model, data, ranks, batch, memory and run folder."""
    c, comm, corpus = trainer.config, trainer.comm, trainer.corpus
    parameters, alike = gpt_parameters(trainer.model.config), trainer.pp.size == 1
    predicted = _predicted(trainer)
    states = sum(predicted[kind] for kind in memory.KINDS)
    world = "MPI" if comm.native is not None else "simulated" if comm.size > 1 else "one process"
    table = Table(show_header=False, box=None, padding=(0, 1))
    rows = {
        "model": f"{c.model_name}: {parameters:,} parameters, {_numbers(c)}",
        "data": f"{c.data}: {len(corpus.train):,} bytes to train on, "
                f"{len(corpus.held_out):,} held out",
        "ranks": f"{comm.size} ({world}), {_layout(trainer)}, all-reduce {c.allreduce}",
        "batch": f"{c.batch} x {c.seq} = {c.batch * c.seq:,} tokens a step",
        "memory": f"{states / 2**20:.1f} MiB {'a rank' if alike else 'on rank 0'} for "
                  "parameters, gradients and optimiser",
        "run": str(out) + (f", from step {done}" if done else ""),
    }  # fmt: skip
    for name, text in rows.items():
        table.add_row(name, text)
    screen.print(table)


def _predicted(t: Trainer) -> dict[str, int]:
    return memory.predicted(t.config, t.model, t.optimizer, t.layers, t.dp, t.pp)


def memory_table(trainer: Trainer) -> Table:
    """The bytes of every rank after a step, by the formulas and counted. All ranks call it."""
    assert trainer.counted_bytes is not None, "bytes are counted in the first step"
    return memory.table(trainer.comm, _predicted(trainer), trainer.counted_bytes)


def _layout(trainer: Trainer) -> str:
    """'data parallel', or 'dp 2 x tp 2, sequence parallel'."""
    zero = f", ZeRO-{trainer.config.zero}" if trainer.config.zero else ""
    if trainer.tp.size == trainer.pp.size == 1:
        return f"data parallel{zero}{_microbatches(trainer)}"
    sizes = {"pp": trainer.pp.size, "dp": trainer.dp.size, "tp": trainer.tp.size}
    axes = " x ".join(f"{axis} {n}" for axis, n in sizes.items() if n > 1 or axis == "dp")
    tokens = ", sequence parallel" if trainer.config.sequence_parallel else ""
    return f"{axes}{zero}{tokens}{_microbatches(trainer)}"


def _microbatches(trainer: Trainer) -> str:
    """', 1f1b of 8 micro-batches, layers 2 + 2'; nothing where there is but one."""
    schedule, layers = trainer.schedule, " + ".join(str(len(r)) for r in trainer.layers)
    if schedule.stages == schedule.microbatches == 1:
        return ""
    return f", {schedule.name} of {schedule.microbatches} micro-batches, layers {layers}"


def _numbers(c: TrainConfig) -> str:
    """'float32 on the CPU, bfloat16 in products'."""
    place = "the CPU" if c.device == "cpu" else "a GPU"
    products = "" if c.precision == "full" else f", {c.precision} in products"
    return f"{c.dtype} on {place}{products}"


def show_end(
    screen: Console, trainer: Trainer, records: list[dict[str, Any]], steps: int, seconds: float,
    ledger: Ledger,
) -> None:  # fmt: skip
    """Time, speed, loss and traffic of these `steps` steps; the held-out loss in other units."""
    c, last = trainer.config, records[-1]
    screen.print(
        f"{seconds:.1f} s, {steps * c.batch * c.seq / seconds:,.0f} tokens/s, "
        f"loss {records[0]['loss']:.4f} -> {last['loss']:.4f}; "
        f"rank 0 sent {ledger.bytes / 2**20:,.1f} MiB in {ledger.messages:,} messages"
    )
    screen.print(perplexity_line(last["val_loss"]))


def show_sample(screen: Console, sample: np.ndarray) -> None:
    screen.rule("sample", align="left")
    screen.print(data.decode(sample), markup=False)
    screen.rule()
