"""Sampling: a run folder and a prompt in, text out."""

from __future__ import annotations

import math
import os
from pathlib import Path

from .. import data
from ..errors import UserError
from ..models.gpt import GPT
from . import checkpoint
from .config import TrainConfig, check_prompt, read_toml


def run_config(run: Path) -> TrainConfig:
    """The configuration of a run folder."""
    if not os.path.isfile(run / "config.toml"):
        raise UserError(f"run '{run}' holds no run (no config.toml): give a folder under runs/")
    return read_toml(run / "config.toml")


def load_model(run: Path, config: TrainConfig) -> GPT:
    """The model of a run folder's last checkpoint, ready to evaluate."""
    model = GPT(config.gpt(data.VOCAB))
    model.to(config.dtype)
    checkpoint.load(checkpoint.last(run / "checkpoints"), model)
    model.eval()
    return model


def sample_run(
    run: Path, prompt: str, tokens: int, temperature: float, top_k: int, seed: int
) -> str:
    """The prompt and `tokens` bytes more, drawn by the run's model."""
    check_prompt(prompt)
    if tokens < 0 or top_k < 0 or not (temperature >= 0 and math.isfinite(temperature)):
        raise UserError(
            f"tokens {tokens}, top-k {top_k}, temperature {temperature}: none may be negative"
        )
    config = run_config(run)
    model, encoding = load_model(run, config), config.encoding or "utf-8"
    start = data.encode(prompt, encoding)
    written = model.generate(start, tokens, temperature, top_k, seed, config.seq)
    return data.decode(written, encoding)
