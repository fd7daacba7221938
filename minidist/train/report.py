"""What a run leaves to look at: the loss curve, and the lines at its end."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

from ..plots import plain

HIGHEST_LOSS = math.log(sys.float_info.max)  # 709.8 nats: the perplexity of more is no number


def loss_curve(records: list[dict[str, Any]], path: Path, title: str, uniform: float) -> None:
    """Draw training and held-out loss against the step, and the loss of a uniform guess."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.plot([r["step"] for r in records], [r["loss"] for r in records], lw=1, label="training")
    held = [(r["step"], r["val_loss"]) for r in records if r.get("val_loss") is not None]
    if held:
        axes.plot(*zip(*held), "o-", ms=4, label="held-out")
    axes.axhline(uniform, ls=":", color="gray", label=f"uniform guess, ln V = {uniform:.3f}")
    axes.set(xlabel="step", ylabel="loss (nats a byte)", ylim=(0, None))
    text, how = plain(title)
    axes.set_title(text, size=12 * min(1, 65 / max(len(text), 1)), **how)
    figure.legend(loc="outside lower center", ncols=3, frameon=False)  # beside the curves
    axes.grid(alpha=0.3)
    figure.savefig(path)


def perplexity_line(loss: float) -> str:
    """Held-out loss in the three units people ask for."""
    perplexity = math.exp(loss) if loss < HIGHEST_LOSS else math.inf
    return (
        f"held-out: {loss:.4f} nats a byte = {loss / math.log(2):.4f} bits a byte, "
        f"perplexity {perplexity:.3f} a byte"
    )
