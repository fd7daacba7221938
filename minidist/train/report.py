"""What a run leaves to look at: the loss curve, and the lines at its end."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..plots import plain

HIGHEST_LOSS = math.log(sys.float_info.max)  # 709.8 nats: a higher loss has no finite perplexity
Records = list[dict[str, Any]]  # of metrics.jsonl


def loss_curve(records: Records, path: Path, title: str, uniform: float) -> None:
    """Draw training and held-out loss against the step, and the loss of a uniform guess."""
    with _picture(path, title) as axes:
        axes.plot(*_steps_and(records, "loss"), lw=1, label="training")
        if any(held_out := _steps_and(records, "val_loss")):
            axes.plot(*held_out, "o-", ms=4, label="held-out")
        axes.axhline(uniform, ls=":", color="gray", label=f"uniform guess, ln V = {uniform:.3f}")


def loss_curves(runs: dict[str, Records], path: Path) -> None:
    """Draw several runs, each in its own colour: held-out loss as points, training loss paler."""
    with _picture(path, "held-out loss (points) and training loss") as axes:
        for i, (name, records) in enumerate(runs.items()):
            axes.plot(*_steps_and(records, "loss"), lw=1, alpha=0.35, color=f"C{i}")
            axes.plot(*_steps_and(records, "val_loss"), "o-", ms=4, color=f"C{i}", label=name)


def _steps_and(records: Records, key: str) -> tuple[list[int], list[float]]:
    """The steps where a quantity was measured, and its values."""
    measured = [(r["step"], r[key]) for r in records if r.get(key) is not None]
    return [step for step, _ in measured], [value for _, value in measured]


@contextlib.contextmanager
def _picture(path: Path, title: str) -> Iterator[Any]:
    """Axes of step and loss to draw on; they are labelled and saved at the end of the block."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    yield axes
    axes.set(xlabel="step", ylabel="loss (nats a byte)", ylim=(0, None))
    text, how = plain(title)
    axes.set_title(text, size=12 * min(1, 65 / max(len(text), 1)), **how)
    legend = figure.legend(loc="outside lower center", ncols=3, frameon=False)  # hides no curve
    for entry in legend.get_texts():  # may be names of runs
        text, how = plain(entry.get_text(), 60)
        entry.set(text=text, **how)
    axes.grid(alpha=0.3)
    figure.savefig(path)


def perplexity_line(loss: float) -> str:
    """Held-out loss in the three units people ask for."""
    perplexity = math.exp(loss) if loss < HIGHEST_LOSS else math.inf
    return (
        f"held-out: {loss:.4f} nats a byte = {loss / math.log(2):.4f} bits a byte, "
        f"perplexity {perplexity:.3f} a byte"
    )
