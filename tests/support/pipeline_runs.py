"""What tests of runs through a pipeline share: a short run, and all that it leaves, in bits."""

import json
from pathlib import Path

from safetensors.numpy import load_file

from minidist.comm import simulate
from minidist.train.config import TrainConfig
from minidist.train.run import run

SIZES = {"model": "gpt-tiny", "steps": 3, "batch": 11, "seq": 9, "dropout": 0.2, "clip": 0.3,
         "eval_every": 3, "save_every": 2, "microbatches": 4, "sample": 12}  # fmt: skip


def train(folder: Path, **layout):
    """The curve with all its digits, the last weights, and the last moments."""
    config = TrainConfig(**{**SIZES, **layout}, out=str(folder))
    simulate(lambda comm: run(config, comm), config.pp * (config.dp or 1) * config.tp)
    return read(folder)


def read(folder: Path):
    records = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    curve = [(r["loss"], r["grad_norm"], r.get("val_loss")) for r in records]
    last = sorted((folder / "checkpoints").iterdir())[-1]
    files = (load_file(last / f"{name}.safetensors") for name in ("model", "optimizer"))
    return curve, *({k: v.tobytes() for k, v in file.items()} for file in files)
