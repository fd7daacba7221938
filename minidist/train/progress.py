"""What rank 0 shows while it trains: a live bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

SECONDS_BETWEEN_LINES = 5.0


def console() -> Console:
    """A console that draws where a person looks: also through mpirun, which hands ranks a pipe."""
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
