"""A whole run: check on all ranks, train, evaluate, save, and leave a run folder."""

from __future__ import annotations

import contextlib
import os
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
from ..errors import UserError, visible
from . import checkpoint
from .changes import changes, check_model, keep_config, ranks_of
from .config import TrainConfig, check, read_toml
from .files import writing
from .loop import EVAL_ROWS, Trainer
from .metrics import MetricsFile, read
from .report import loss_curve
from .screen import Bar, console, memory_table, show_end, show_sample, show_start, show_stop
from .stop import Signals, Stop
from .warm_up import warm_up

TEMPERATURE, TOP_K = 0.8, 40
NAME = 150  # bytes of the data's name in the name of a run folder; a name may have 255 bytes


def run(config: TrainConfig, comm: Communicator, signals: Signals | None = None) -> dict[str, Any]:
    """Train on every rank of `comm`; raises the same UserError on all of them.

    After a signal, the run finishes its step, saves a checkpoint and ends: see stop.py. Returns the
    last record of the metrics and rank 0's run folder.
    """
    corpus = _together(comm, lambda: _prepare(config, comm))
    _together(comm, lambda: _same_text(corpus, comm))
    if corpus.encoding != "utf-8":  # kept in config.toml for `minidist sample`
        config = replace(config, encoding=corpus.encoding)
    screen = console(lambda error: None) if comm.rank == 0 else None
    warm_up(config, corpus, screen.print if screen else lambda line: None)
    trainer, stop = Trainer(config, comm, corpus), Stop(comm, signals or Signals())
    trainer.wants_to_stop = stop.is_wanted
    state = _together(comm, lambda: _resume(trainer))
    opened = _together(comm, lambda: _open_folder(config, state) if comm.rank == 0 else None)
    if opened is None:
        return _take_part(trainer, state, stop)
    return _lead(trainer, state, stop, *opened)


def _take_part(trainer: Trainer, state: dict[str, Any], stop: Stop) -> dict[str, Any]:
    """The run of a rank other than 0: the same steps, and nothing is printed or written."""
    *_, last = _records(trainer, state, stop)
    if not stop.steps_are_over():
        _sample(trainer)
    return last


def _lead(
    trainer: Trainer, state: dict[str, Any], stop: Stop, out: Path, metrics: MetricsFile
) -> dict[str, Any]:
    """The run of rank 0: the same steps, which it also prints, and writes to the run folder."""
    c, screen, first = trainer.config, console(stop.lose_output), state["step"]
    show_start(screen, trainer, out, first, state["changes"])
    started, seconds, record = time.perf_counter(), 0.0, {}
    with (
        _drawn(trainer, out, stop),
        contextlib.closing(metrics),
        Bar(screen, c.steps, first) as bar,
        Ledger(trainer.comm) as ledger,
    ):
        for record in _records(trainer, state, stop, out, screen):
            with stop.noting(metrics.path):
                metrics.write(record)
            bar.show(record)
        seconds = time.perf_counter() - started
    number, records = stop.steps_are_over(), read(out / "metrics.jsonl")
    show_end(screen, trainer, records, record["step"] - first, seconds, ledger)
    if number:
        show_stop(screen, trainer, record["step"], out)
    elif (sample := _sample(trainer)) is not None:
        show_sample(screen, data.decode(sample, trainer.corpus.encoding))
    screen.print(f"left in {visible(out)}: config.toml, metrics.jsonl, loss.png, checkpoints/")
    return {**record, "out": str(out)}


@contextlib.contextmanager
def _drawn(trainer: Trainer, out: Path, stop: Stop) -> Iterator[None]:
    """Draw the loss curve after the steps, also if they end with an error."""
    try:
        yield
    except SystemExit:  # a second signal
        raise
    except BaseException:
        _draw(trainer, out, stop)
        raise
    _draw(trainer, out, stop)


def _draw(trainer: Trainer, out: Path, stop: Stop) -> None:
    c, ranks = trainer.config, f"{trainer.comm.size} rank" + "s" * (trainer.comm.size > 1)
    title = f"{c.model_name} on {visible(Path(c.data).name, 40)}, {ranks}"
    with stop.noting(out / "loss.png"):
        records = read(out / "metrics.jsonl")
        loss_curve(records, out / "loss.png", title, uniform=float(np.log(data.VOCAB)))


def _records(
    trainer: Trainer, state: dict[str, Any], stop: Stop, out: Path | None = None,
    screen: Console | None = None,
) -> Iterator[dict[str, Any]]:  # fmt: skip
    """Yield one record per step.

    Evaluation, the memory table and checkpoints involve every rank, so all ranks run them here, in
    the same order. The rank with `out` and `screen` also writes and prints them.
    """
    c = trainer.config
    for record in trainer.run(state["step"], state["tokens"]):
        step, is_last = record["step"], trainer.stops and stop.agreed() > 0
        if _is_due(step, c.eval_every, c.steps):
            record["val_loss"] = trainer.evaluate()
        yield record
        if "val_loss" in record:
            trainer.check_loss("held-out loss", record["val_loss"], step)
        if step == state["step"] + 1:
            table = memory_table(trainer)
            if screen is not None:
                screen.print(table)
        if is_last or _is_due(step, c.save_every, c.steps):
            _save(trainer, out, record)
        if is_last:
            return


def _is_due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _sample(trainer: Trainer) -> np.ndarray | None:
    """A text by the model, if one is wanted: on rank 0, but every rank calls it."""
    c = trainer.config
    if not c.sample:
        return None
    prompt = data.encode(c.prompt, trainer.corpus.encoding)
    text = trainer.sample(prompt, c.sample, TEMPERATURE, TOP_K, c.seed)
    assert text is not None or trainer.comm.rank, "rank 0 is of the first replica"
    return text


def _save(trainer: Trainer, out: Path | None, record: dict[str, Any]) -> None:
    """Save a checkpoint; if the model has diverged, every rank raises a UserError instead."""
    step = record["step"]
    if "val_loss" not in record:  # a few windows show whether the model has diverged
        trainer.check_loss("held-out loss", trainer.evaluate(EVAL_ROWS), step)
    trainer.check_weights(step)
    _together(trainer.comm, lambda: checkpoint.save(
        (out or Path()) / "checkpoints", step, trainer.model, trainer.optimizer,
        record["tokens"], trainer.scaler.state_dict(), writes=out is not None,
        stages=None if trainer.dp.rank or trainer.tp.rank else trainer.pp,
        about={"ranks": ranks_of(trainer), "data": trainer.corpus.fingerprint},
    ))  # fmt: skip


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
    corpus = data.load(config.data, config.seq, config.drop_repeats, config.encoding)
    if config.sample:
        data.encode(config.prompt, corpus.encoding)  # raises if it cannot be encoded
    return corpus


def _check_folder(out: Path, resume: bool) -> None:
    if os.path.isfile(out / "config.toml"):
        if not resume:
            raise UserError(
                f"out '{out}' already holds a run: choose another --out, or resume that run with "
                "--resume"
            )
    elif resume:
        if not checkpoint.steps(out / "checkpoints"):
            raise UserError(f"out '{out}' holds no run (no config.toml): nothing to resume")
    elif os.path.exists(out) and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"out '{out}' already holds other files: choose another --out")


def _same_text(corpus: data.Corpus, comm: Communicator) -> None:
    mine = corpus.fingerprint
    first = broadcast(comm, np.frombuffer(bytearray(mine.encode()), np.uint8)).tobytes().decode()
    if mine != first:
        raise UserError(
            f"data differs between ranks ({mine} here, {first} on rank 0): give all the same file "
            "and the same Python"
        )


def _resume(trainer: Trainer) -> dict[str, Any]:
    """The state to start from: the last checkpoint, or step 0 if none was saved yet.

    "changes" lists what differs from the run before.
    """
    c, afresh = trainer.config, {"step": 0, "tokens": 0, "changes": []}
    if not c.resume:
        return afresh
    out = Path(str(c.out))
    old = read_toml(out / "config.toml") if (out / "config.toml").is_file() else c
    if not checkpoint.steps(out / "checkpoints"):
        return {**afresh, "changes": ["no checkpoint was saved yet: starting from step 0"]}
    path = checkpoint.last(out / "checkpoints")
    check_model(str(path), old, c)
    state = checkpoint.load(path, trainer.model, trainer.optimizer, trainer.passes.names)
    if state["scaler"] and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(state["scaler"])
    if state["step"] >= c.steps:
        raise UserError(f"run '{c.out}' has done {state['step']} steps already: raise --steps")
    return {**state, "changes": changes(old, trainer, state)}


def _open_folder(c: TrainConfig, state: dict[str, Any]) -> tuple[Path, MetricsFile]:
    """The run folder with its config.toml, and its metrics up to the step it resumes from."""
    out = Path(c.out) if c.out else _new_folder(c)
    with writing(out, (OSError, ValueError)):  # ValueError: a path with a NUL
        out.mkdir(parents=True, exist_ok=True)
        keep_config(c, out / "config.toml", state["step"])
        return out, MetricsFile(out / "metrics.jsonl", after=state["step"])


def _new_folder(c: TrainConfig) -> Path:
    """runs/<date>-<model>-<data>, with a number behind it if that one is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    data = Path(c.data).stem.encode()[:NAME].decode(errors="ignore")
    base = Path("runs") / f"{stamp}-{c.model}-{data}"
    tries = (base if i == 1 else base.with_name(f"{base.name}-{i}") for i in range(1, 1000))
    return next(path for path in tries if not path.exists())
