"""Changes of a resumed run: they are printed, and the old config.toml is kept."""

from __future__ import annotations

import os
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from .. import data
from ..errors import UserError
from ..optim import warmup_cosine
from .config import LAUNCH, TrainConfig, read_toml, write_toml
from .loop import Trainer

RATE = ("steps", "lr", "final_lr", "warmup")  # the learning rate of a step depends on these


def changes(old: TrainConfig, trainer: Trainer, state: dict[str, Any]) -> list[str]:
    """A line for each change: options, the learning rate that follows, the text, the layout."""
    new, about = trainer.config, state["about"]
    lines = [f"{k} {before} -> {now}" for k, before, now in _differing(old, new)]
    if any(getattr(old, name) != getattr(new, name) for name in RATE):
        lines.append(_rates(old, new, state["step"]))
    if old.data == new.data and about.get("data", "") not in ("", trainer.corpus.fingerprint):
        lines.append(f"data {new.data}: the contents of the file have changed")
    layouts = [_layout(about["ranks"]), _layout(ranks_of(trainer))] if "ranks" in about else []
    if len(set(layouts)) == 2:
        lines.append("layout " + " -> ".join(layouts))
    return lines


def check_model(path: str, old: TrainConfig, new: TrainConfig) -> None:
    """Raise a UserError of one line if the checkpoint at `path` has a model of other sizes."""
    there, here = (asdict(replace(c, dropout=0.0).gpt(data.VOCAB)) for c in (old, new))
    sizes = [f"{k} {there[k]}, not {here[k]}" for k in there if there[k] != here[k]]
    if sizes:
        raise UserError(
            f"checkpoint '{path}' is of another model: {', '.join(sizes)}; leave --model, its "
            "shape and --seq as they were, or start another run"
        )


def keep_config(config: TrainConfig, path: Path, step: int) -> None:
    """Write config.toml; if the options changed, keep the old file as config-step-N.toml."""
    config = replace(config, out=str(path.parent), resume=False, config=None)
    kept = path.with_name(f"config-step-{step}.toml")
    if path.exists() and not kept.exists():
        old = replace(read_toml(path), out=config.out, config=None)
        if old != config:
            os.replace(path, kept)
    draft = path.with_suffix(".part")
    write_toml(config, draft)
    os.replace(draft, path)


def ranks_of(trainer: Trainer) -> dict[str, int]:
    """The sizes of the mesh, and ZeRO's stage."""
    sizes = {axis: getattr(trainer, axis).size for axis in ("pp", "dp", "tp")}
    return {**sizes, "zero": trainer.config.zero}


def _differing(old: TrainConfig, new: TrainConfig) -> list[tuple[str, Any, Any]]:
    before, now = asdict(old), asdict(new)
    return [(k, v, now[k]) for k, v in before.items() if k not in LAUNCH and v != now[k]]


def _rates(old: TrainConfig, new: TrainConfig, step: int) -> str:
    rate = lambda c, at: warmup_cosine(at, c.steps, c.warmup, c.lr, c.lr * c.final_lr)
    return (
        f"learning rate {rate(old, step - 1):.3g} at step {step} -> {rate(new, step):.3g} at step "
        f"{step + 1}: its cosine ends at step {new.steps}"
    )


def _layout(ranks: dict[str, int]) -> str:
    """'dp 2 x tp 2, ZeRO-1'."""
    axes = [axis for axis in ("pp", "dp", "tp") if ranks[axis] > 1 or axis == "dp"]
    zero = f", ZeRO-{ranks['zero']}" if ranks["zero"] else ""
    return " x ".join(f"{axis} {ranks[axis]}" for axis in axes) + zero
