"""The screen of rank 0: start table, live bar or lines, memory table, end and sample of a run.

Training does not depend on this file.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Column, Table

from ..comm import Ledger
from ..errors import visible
from ..plan.gpt import gpt_parameters
from . import memory
from .config import TrainConfig, resuming
from .loop import Trainer
from .report import perplexity_line
from .stop import CLOSED_PIPE, drop_output

SECONDS_BETWEEN_LINES = 5.0


def leave(error: OSError) -> None:
    raise SystemExit(CLOSED_PIPE) from error


def console(lost: Callable[[OSError], None] = leave) -> Console:
    """A console that draws on a terminal, also under mpirun, which gives its ranks a pipe.

    `lost` is called when the output can no longer be written.
    """
    terminal, file = sys.stdout.isatty() or _launcher_has_terminal(), cast(IO[str], Output(lost))
    # File names are not markup: "[/b]" and ":x:" are printed as they are.
    return Console(
        file=file, force_terminal=terminal, soft_wrap=not terminal, highlight=False, markup=False,
        emoji=False,
    )  # fmt: skip


class Output:
    """sys.stdout, without an error when its reader has exited (`| head`) or its disk is full."""

    def __init__(self, lost: Callable[[OSError], None]):
        self.lost = lost

    def __getattr__(self, name: str) -> Any:
        return getattr(sys.stdout, name)

    def write(self, text: str) -> int:
        return self._unless_lost(lambda: sys.stdout.write(text))

    def flush(self) -> None:
        self._unless_lost(sys.stdout.flush)

    def _unless_lost(self, action: Callable[[], Any]) -> Any:
        try:
            return action()
        except OSError as error:
            drop_output()
            self.lost(error)


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


def show_start(screen: Console, trainer: Trainer, out: Path, done: int, changes: list[str]) -> None:
    """A table: the model, data, ranks, batch, memory, run folder, and a resumed run's changes."""
    c, comm, corpus = trainer.config, trainer.comm, trainer.corpus
    parameters, alike = gpt_parameters(trainer.model.config), trainer.pp.size == 1
    predicted = _predicted(trainer)
    states = sum(predicted[kind] for kind in memory.KINDS)
    world = "MPI" if comm.native is not None else "simulated" if comm.size > 1 else "one process"
    table = Table("", Column(overflow="fold"), show_header=False, box=None, padding=(0, 1))
    rows = {
        "model": f"{c.model_name}: {parameters:,} parameters, {_numbers(c)}",
        "data": f"{visible(c.data)}: {len(corpus.train):,} bytes to train on, "
                f"{len(corpus.held_out):,} held out",
        "ranks": f"{comm.size} ({world}), {_layout(trainer)}, all-reduce {c.allreduce}",
        "batch": f"{c.batch} x {c.seq} = {c.batch * c.seq:,} tokens a step",
        "memory": f"{states / 2**20:.1f} MiB {'a rank' if alike else 'on rank 0'} for "
                  "parameters, gradients and optimiser",
        "run": visible(out) + (f", from step {done}" if done else ""),
    }  # fmt: skip
    for name, notes in {"data": corpus.notes, "ranks": trainer.schedule.notes}.items():
        rows[name] = "\n".join([rows[name], *notes])
    for name, text in [*rows.items(), *(("changed", visible(line)) for line in changes)]:
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
    return f", {visible(schedule.name)} of {schedule.microbatches} micro-batches, layers {layers}"


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
    held_out = [r["val_loss"] for r in records if r.get("val_loss") is not None]
    if held_out:
        screen.print(perplexity_line(held_out[-1]))


def show_stop(screen: Console, trainer: Trainer, step: int, out: Path) -> None:
    """Print the command that resumes a run after a signal, unless all its steps are done."""
    steps, comm = trainer.config.steps, trainer.comm
    start = f"mpirun -n {comm.size} " if comm.native is not None and comm.size > 1 else ""
    screen.print(f"stopped after step {step} of {steps}; its checkpoint is saved")
    if step < steps:
        screen.print(f"to resume: {resuming(trainer.config, out, start)}", markup=False)


def show_sample(screen: Console, sample: str) -> None:
    line = "-" if screen.options.ascii_only else "─"
    screen.rule("sample", align="left", characters=line)
    screen.print(visible(sample, keep="\r\n\t"))  # a model of bytes may write escape sequences
    screen.rule(characters=line)
