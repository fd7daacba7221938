"""A whole run: check on all ranks, train, evaluate, save, and leave a run folder."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from .. import data
from ..comm import Communicator, Ledger, agree, broadcast
from ..errors import UserError
from . import checkpoint
from .config import TrainConfig, check, write_toml
from .loop import Trainer
from .metrics import MetricsFile, read
from .report import loss_curve
from .screen import Bar, console, memory_table, show_end, show_sample, show_start

TEMPERATURE, TOP_K = 0.8, 40


def run(config: TrainConfig, comm: Communicator) -> dict[str, Any]:
    """Train on every rank of `comm`; raises the same UserError on all of them, before training.

    Returns the last record of the metrics with the held-out loss and rank 0's run folder.
    """
    corpus = _together(comm, lambda: _prepare(config, comm))
    _together(comm, lambda: _same_text(corpus, comm))
    trainer = Trainer(config, comm, corpus)
    state = _together(comm, lambda: _resume(trainer))
    out = _together(comm, lambda: _open_folder(config) if comm.rank == 0 else None)
    return _take_part(trainer, state) if out is None else _lead(trainer, state, out)


def _take_part(trainer: Trainer, state: dict[str, Any]) -> dict[str, Any]:
    """The run of a rank other than 0: the same steps, and nothing is printed or written."""
    *_, last = _records(trainer, state)
    _sample(trainer)
    return last


def _lead(trainer: Trainer, state: dict[str, Any], out: Path) -> dict[str, Any]:
    """The run of rank 0: the same steps, which it also prints, and writes to the run folder."""
    c, screen, first = trainer.config, console(), state["step"]
    show_start(screen, trainer, out, first)
    metrics = MetricsFile(out / "metrics.jsonl", after=first)
    started, record = time.perf_counter(), {}
    with (
        contextlib.closing(metrics),
        Bar(screen, c.steps, first) as bar,
        Ledger(trainer.comm) as ledger,
    ):
        for record in _records(trainer, state, out, screen):
            metrics.write(record)
            bar.show(record)
    seconds, records = time.perf_counter() - started, read(out / "metrics.jsonl")
    title = f"{c.model_name} on {c.data}, {trainer.comm.size} ranks"
    loss_curve(records, out / "loss.png", title, uniform=float(np.log(data.VOCAB)))
    show_end(screen, trainer, records, record["step"] - first, seconds, ledger)
    sample = _sample(trainer)
    if sample is not None:
        show_sample(screen, sample)
    screen.print(f"left in {out}: config.toml, metrics.jsonl, loss.png, checkpoints/")
    return {**record, "out": str(out)}


def _records(
    trainer: Trainer, state: dict[str, Any], out: Path | None = None, screen: Console | None = None
) -> Iterator[dict[str, Any]]:
    """Yield one record per step.

    Evaluation, the memory table and checkpoints involve every rank, so all ranks run them here, in
    the same order. The rank with `out` and `screen` also writes and prints them.
    """
    c = trainer.config
    for record in trainer.run(state["step"], state["tokens"]):
        step = record["step"]
        if _is_due(step, c.eval_every, c.steps):
            record["val_loss"] = trainer.evaluate()
        yield record
        if step == state["step"] + 1:
            table = memory_table(trainer)
            if screen is not None:
                screen.print(table)
        if _is_due(step, c.save_every, c.steps):
            _save(trainer, out, record)


def _is_due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _sample(trainer: Trainer) -> np.ndarray | None:
    """A text by the model, if one is wanted: on rank 0, but every rank calls it."""
    c = trainer.config
    if not c.sample:
        return None
    text = trainer.sample(data.encode(c.prompt), c.sample, TEMPERATURE, TOP_K, c.seed)
    assert text is not None or trainer.comm.rank, "rank 0 is of the first replica"
    return text


def _save(trainer: Trainer, out: Path | None, record: dict[str, Any]) -> None:
    checkpoint.save(
        (out or Path()) / "checkpoints", record["step"], trainer.model, trainer.optimizer,
        record["tokens"], trainer.scaler.state_dict(), writes=out is not None,
        stages=None if trainer.dp.rank or trainer.tp.rank else trainer.pp,
    )  # fmt: skip


# Before training


def _together(comm: Communicator, task: Any) -> Any:
    """Run a task on every rank; if it raises a UserError on one, every rank raises the same."""
    result = problem = None
    try:
        result = task()
    except UserError as error:
        problem = str(error)
    reason = agree(comm, problem)
    if reason is not None:
        raise UserError(reason)
    return result


def _prepare(config: TrainConfig, comm: Communicator) -> data.Corpus:
    check(config, comm.size)
    if config.allreduce == "native" and comm.native is None:
        raise UserError("allreduce native is MPI's own: start with mpirun, or use --allreduce ring")
    if comm.rank == 0 and config.out is not None:
        _check_folder(Path(config.out), config.resume)
    return data.load(config.data, config.seq)


def _check_folder(out: Path, resume: bool) -> None:
    if resume:
        checkpoint.last(out / "checkpoints")
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(
            f"out '{out}' already holds a run or other files: choose another --out, "
            "or go on with that run by --resume"
        )


def _same_text(corpus: data.Corpus, comm: Communicator) -> None:
    mine = corpus.fingerprint
    first = broadcast(comm, np.frombuffer(bytearray(mine.encode()), np.uint8)).tobytes().decode()
    if mine != first:
        raise UserError(
            f"data differs between ranks ({mine} here, {first} on rank 0): give all the same file "
            "and the same Python"
        )


def _resume(trainer: Trainer) -> dict[str, Any]:
    c = trainer.config
    if not c.resume:
        return {"step": 0, "tokens": 0}
    path = checkpoint.last(Path(str(c.out)) / "checkpoints")
    elsewhere = trainer.passes.names
    state = checkpoint.load(path, trainer.model, trainer.optimizer, elsewhere)
    if state["scaler"] and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(state["scaler"])
    if state["step"] >= c.steps:
        raise UserError(f"run '{c.out}' has done {state['step']} steps already: raise --steps")
    return state


def _open_folder(c: TrainConfig) -> Path:
    """The run folder, made and with its config.toml in it."""
    out = Path(c.out) if c.out else _new_folder(c)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_toml(replace(c, out=str(out), resume=False), out / "config.toml")
    except OSError as error:
        raise UserError(f"out '{out}' cannot be written: {error.strerror}") from None
    return out


def _new_folder(c: TrainConfig) -> Path:
    """runs/<date>-<model>-<data>, with a number behind it if that one is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stamp}-{c.model}-{Path(c.data).stem}"
    tries = (base if i == 1 else base.with_name(f"{base.name}-{i}") for i in range(1, 1000))
    return next(path for path in tries if not path.exists())
