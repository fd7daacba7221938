"""Pipelines of all schedules and models: each rank writes its numbers' SHA-256s, order, traffic."""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from support.pipeline_cases import SIZES, Found, Parts, batches, make_pipeline, trained

from minidist import data, random
from minidist.comm import Ledger, mpi_world
from minidist.parallel.pipeline.run.runtime import Tied
from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.train.config import TrainConfig
from minidist.train.loop import Trainer

ROWS, STEPS = 11, 3
MICROBATCHES = {2: 4, 4: 8}  # by ranks: dualpipev needs two for each
CASES = [(kind, name) for kind in NAMES for name in SIZES]
EVALUATED = ("1f1b", "interleaved", "zbv")
CONFIG = TrainConfig(
    model="gpt-tiny", steps=3, batch=12, seq=12, dropout=0.1, clip=0.5, warmup=1, microbatches=6
)
LAYOUTS = {
    2: [{"pp": 2}, {"pp": 2, "schedule": "zbv"}],
    4: [
        {"pp": 4}, {"pp": 2, "dp": 2, "schedule": "zbv"},
        {"pp": 2, "tp": 2, "schedule": "interleaved", "sequence_parallel": True},
    ],
}  # fmt: skip


def digest(value: bytes | None) -> str | None:
    return None if value is None else hashlib.sha256(value).hexdigest()


def digests(found: Found) -> list:
    """Losses; gradients of every step; parameters and buffers after the last."""
    gradients = [{name: digest(g) for name, g in step.items()} for step in found.gradients]
    return [found.losses, gradients, {name: digest(a) for name, a in found.state.items()}]


def run(comm, kind: str, name: str) -> dict:
    """Three steps: their numbers, what the last one executed, and all that this rank sent."""
    with Ledger(comm) as ledger:
        pipeline = make_pipeline(comm, name, make(kind, comm.size, MICROBATCHES[comm.size]))
        xs, ys, bounds = batches(name, ROWS, pipeline.schedule.microbatches)
        step = lambda k: pipeline.step(xs, ys, lambda i: random.at(0, k, bounds[i][0]), 1 / ROWS)
        parts = Parts(pipeline.module, pipeline.stages, pipeline.criterion)
        found = trained(parts, step, STEPS)
    sent = sorted([*route, *counts] for route, counts in ledger.sent.items())
    return {
        "numbers": digests(found),
        "sent": sent,
        "order": [str(step) for step, *_ in pipeline.executed],
    }


def evaluate(comm, kind: str) -> list:
    """The loss, and on the last stage's rank the outputs, of 1 micro-batch and of 5."""
    pipeline, found = make_pipeline(comm, "cnn", make(kind, comm.size, MICROBATCHES[comm.size])), []
    pipeline.module.eval()
    for m in (1, 5):
        xs, ys, _ = batches("cnn", 10, m)
        outputs = pipeline.forward(xs) or []
        found.append([pipeline.evaluate(xs, ys), [digest(y.data.tobytes()) for y in outputs]])
    return found


def train(comm, layout: dict) -> list:
    """Three steps of the trainer, and its evaluation: float32, clipped, AdamW, dropout."""
    trainer = Trainer(replace(CONFIG, **layout), comm, data.load("docs", CONFIG.seq))
    records = [{**record, "tokens_per_s": 0} for record in trainer.run(0, 0)]
    state = {name: digest(a.tobytes()) for name, a in trainer.model.state_dict().items()}
    return [records, trainer.evaluate(), state]


def results(comm) -> dict:
    found: dict = {f"{kind} {name}": run(comm, kind, name) for kind, name in CASES}
    found["evaluated"] = {kind: evaluate(comm, kind) for kind in EVALUATED}
    return {**found, "trained": [train(comm, layout) for layout in LAYOUTS[comm.size]]}


if __name__ == "__main__":
    comm = mpi_world()
    if "mutant" in sys.argv:
        Tied.sum_gradients = lambda self: None
        found = {"1f1b gpt": run(comm, "1f1b", "gpt")}
    else:
        found = results(comm)
    Path(sys.argv[1], f"{comm.rank}.json").write_text(json.dumps(found))
