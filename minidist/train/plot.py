"""`minidist plot`: draw the loss of runs again, also of running or interrupted ones."""

from __future__ import annotations

import math
from pathlib import Path

from .. import data
from ..errors import UserError, visible
from .metrics import read
from .report import Records, loss_curve, loss_curves
from .sample import run_config

TOGETHER = "runs.png"  # the picture of several runs, in the current folder


def plot(runs: list[Path], out: Path | None) -> Path:
    """Draw one run as its loss.png, or several in one picture; return the picture's path."""
    records = [_records(run) for run in runs]
    path = out or (runs[0] / "loss.png" if len(runs) == 1 else Path(TOGETHER))
    if not path.suffix:  # Matplotlib would add one, and the picture would stand elsewhere
        raise UserError(f"out '{path}' names no format: end it in .png, .svg or .pdf")
    try:
        if len(runs) == 1:
            config = run_config(runs[0])
            title = f"{config.model_name} on {visible(Path(config.data).name, 40)}"
            loss_curve(records[0], path, title, uniform=math.log(data.VOCAB))
        else:
            loss_curves(dict(zip(_names(runs), records)), path)
    except (OSError, ValueError) as error:  # ValueError: a format that Matplotlib does not know
        raise UserError(f"out '{path}' cannot be drawn: {error}") from None
    return path


def _records(run: Path) -> Records:
    run_config(run)  # is it a run's folder?
    path = run / "metrics.jsonl"
    records = read(path) if path.is_file() else []
    if not records:
        raise UserError(f"run '{run}' has not finished a step yet, so there is nothing to draw")
    return records


def _names(runs: list[Path]) -> list[str]:
    """The names of the run folders; their paths if two have the same name."""
    names = [run.resolve().name for run in runs]
    return names if len(set(names)) == len(names) else [str(run) for run in runs]
