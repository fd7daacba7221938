"""Sampling: a run folder and a prompt in, text out."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .. import data
from ..errors import UserError
from ..models.gpt import GPT
from . import checkpoint
from .config import read_toml


def load_model(run: Path) -> tuple[GPT, str]:
    """The model of a run's last checkpoint, ready to evaluate, and the encoding of its text."""
    if not os.path.isfile(run / "config.toml"):
        raise UserError(f"run '{run}' holds no run (no config.toml): give a folder under runs/")
    config = read_toml(run / "config.toml")
    model = GPT(config.gpt(data.VOCAB))
    model.to(config.dtype)
    checkpoint.load(checkpoint.last(run / "checkpoints"), model)
    model.eval()
    return model, config.encoding or "utf-8"


def sample_run(
    run: Path, prompt: str, tokens: int, temperature: float, top_k: int, seed: int
) -> str:
    """The prompt and `tokens` bytes more, drawn by the run's model."""
    if not prompt:
        raise UserError("prompt is empty: give at least one character to continue")
    if tokens < 0 or top_k < 0 or not (temperature >= 0 and math.isfinite(temperature)):
        raise UserError(
            f"tokens {tokens}, top-k {top_k}, temperature {temperature}: none may be negative"
        )
    model, encoding = load_model(run)
    start = data.encode(prompt, encoding)
    return data.decode(model.generate(start, tokens, temperature, top_k, seed), encoding)
