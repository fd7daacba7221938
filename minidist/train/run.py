"""A whole run: check together, train, measure, and leave a run folder."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from .. import data
from ..comm import Communicator, Ledger, agree, broadcast
from ..errors import UserError
from ..plan.memory import gpt_parameters
from . import checkpoint, memory
from .check import check
from .config import TrainConfig, write_toml
from .loop import Trainer
from .metrics import MetricsFile, read
from .progress import Bar, console
from .report import loss_curve, perplexity_line

PROMPT, TEMPERATURE, TOP_K = "The ", 0.8, 40


def run(config: TrainConfig, comm: Communicator) -> dict[str, Any]:
    """Train on every rank of `comm`; raises the same UserError on all of them, before training.

    Returns the last record of the metrics with the held-out loss and rank 0's run folder.
    """
    corpus = _together(comm, lambda: _prepare(config, comm))
    _together(comm, lambda: _same_text(corpus, comm))
    trainer = Trainer(config, comm, corpus)
    state = _together(comm, lambda: _resume(trainer))
    out = _together(comm, lambda: _open_folder(config) if comm.rank == 0 else None)
    return _follow(trainer, state) if out is None else _lead(trainer, state, out)


def _together(comm: Communicator, task: Any) -> Any:
    """Do a task that may refuse on one rank; if any refuses, every rank raises its reason."""
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
    elsewhere = trainer.pipeline.tied.names
    state = checkpoint.load(path, trainer.model, trainer.optimizer, elsewhere)
    if state["scaler"] and trainer.scaler.is_enabled():
        trainer.scaler.load_state_dict(state["scaler"])
    if state["step"] >= c.steps:
        raise UserError(f"run '{c.out}' has done {state['step']} steps already: raise --steps")
    return state


def _follow(trainer: Trainer, state: dict[str, Any]) -> dict[str, Any]:
    """A rank other than 0: the same steps and measurements, nothing shown or written."""
    last = deque(_measured(trainer, state), maxlen=1)
    _sample(trainer)
    return last[0] if last else {}


def _measured(
    trainer: Trainer, state: dict[str, Any], out: Path | None = None, screen: Console | None = None
) -> Iterator[dict[str, Any]]:
    """The records, and all that ranks do together between steps: in one order on every rank.

    With `out` and `screen` this rank also writes and shows it.
    """
    c = trainer.config
    for record in trainer.run(state["step"], state["tokens"]):
        step = record["step"]
        if _is_due(step, c.eval_every, c.steps):
            record["val_loss"] = trainer.evaluate()
        yield record
        if step == state["step"] + 1:
            _show_memory(screen, trainer)
        if _is_due(step, c.save_every, c.steps):
            _save(trainer, out, record)


def _is_due(step: int, every: int, steps: int) -> bool:
    return step % every == 0 or step == steps


def _open_folder(c: TrainConfig) -> Path:
    """The run folder, made and with its config.toml in it."""
    out = Path(c.out) if c.out else _new_folder(c)
    try:
        out.mkdir(parents=True, exist_ok=True)
        write_toml(replace(c, out=str(out), resume=False), out / "config.toml")
    except OSError as error:
        raise UserError(f"out '{out}' cannot be written: {error.strerror}") from None
    return out


def _lead(trainer: Trainer, state: dict[str, Any], out: Path) -> dict[str, Any]:
    """Rank 0: train with the others, show it, and keep the run folder."""
    c, screen = trainer.config, console()
    _show_start(screen, trainer, out, state["step"])
    metrics = MetricsFile(out / "metrics.jsonl", after=state["step"])
    started, record = time.perf_counter(), {}
    with (
        contextlib.closing(metrics),
        Bar(screen, c.steps, state["step"]) as bar,
        Ledger(trainer.comm) as ledger,
    ):
        for record in _measured(trainer, state, out, screen):
            metrics.write(record)
            bar.show(record)
    seconds = time.perf_counter() - started
    _show_end(screen, trainer, out, record, state["step"], seconds, ledger)
    sample = _sample(trainer)
    if c.sample:
        _show_sample(screen, sample)
    screen.print(f"left in {out}: config.toml, metrics.jsonl, loss.png, checkpoints/")
    return {**record, "out": str(out)}


def _new_folder(c: TrainConfig) -> Path:
    """runs/<date>-<model>-<data>, with a number behind it if that one is taken."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stamp}-{c.model}-{Path(c.data).stem}"
    tries = (base if i == 1 else base.with_name(f"{base.name}-{i}") for i in range(1, 1000))
    return next(path for path in tries if not path.exists())


def _save(trainer: Trainer, out: Path | None, record: dict[str, Any]) -> None:
    checkpoint.save(
        (out or Path()) / "checkpoints", record["step"], trainer.model, trainer.optimizer,
        record["tokens"], trainer.scaler.state_dict(), writes=out is not None,
        stages=None if trainer.dp.rank or trainer.tp.rank else trainer.pp,
    )  # fmt: skip


def _show_start(screen: Console, trainer: Trainer, out: Path, done: int) -> None:
    c, comm, corpus = trainer.config, trainer.comm, trainer.corpus
    parameters, alike = gpt_parameters(trainer.model.config), trainer.pp.size == 1
    world = "MPI" if comm.native is not None else "simulated" if comm.size > 1 else "one process"
    table = Table(show_header=False, box=None, padding=(0, 1))
    rows = {
        "model": f"{c.model}: {parameters:,} parameters, {_numbers(c)}",
        "data": f"{c.data}: {len(corpus.train):,} bytes to train on, "
                f"{len(corpus.held_out):,} held out",
        "ranks": f"{comm.size} ({world}), {_layout(trainer)}, all-reduce {c.allreduce}",
        "batch": f"{c.batch} x {c.seq} = {c.batch * c.seq:,} tokens a step",
        "memory": f"{_states(trainer) / 2**20:.1f} MiB {'a rank' if alike else 'on rank 0'} for "
                  "parameters, gradients and optimiser",
        "run": str(out) + (f", from step {done}" if done else ""),
    }  # fmt: skip
    for name, text in rows.items():
        table.add_row(name, text)
    screen.print(table)


def _states(trainer: Trainer) -> int:
    """Bytes of rank 0 by the formulas, activations aside."""
    held = memory.predicted(trainer)
    return sum(held[kind] for kind in memory.KINDS)


def _show_memory(screen: Console | None, trainer: Trainer) -> None:
    """After a step: what every rank holds, by the formulas and counted."""
    assert trainer.held is not None
    drawn = memory.table(trainer.comm, memory.predicted(trainer), trainer.held)
    if screen is not None:
        screen.print(drawn)


def _layout(trainer: Trainer) -> str:
    """'data parallel', or 'dp 2 x tp 2, sequence parallel'."""
    zero = f", ZeRO-{trainer.config.zero}" if trainer.config.zero else ""
    if trainer.tp.size == trainer.pp.size == 1:
        return f"data parallel{zero}{_microbatches(trainer)}"
    sizes = {"pp": trainer.pp.size, "dp": trainer.dp.size, "tp": trainer.tp.size}
    axes = " x ".join(f"{axis} {n}" for axis, n in sizes.items() if n > 1 or axis == "dp")
    tokens = ", sequence parallel" if trainer.config.sequence_parallel else ""
    return f"{axes}{zero}{tokens}{_microbatches(trainer)}"


def _microbatches(trainer: Trainer) -> str:
    """', 1f1b of 8 micro-batches, layers 2 + 2'; nothing where there is but one."""
    schedule, layers = trainer.pipeline.schedule, " + ".join(str(len(r)) for r in trainer.layers)
    if schedule.stages == schedule.microbatches == 1:
        return ""
    return f", {schedule.name} of {schedule.microbatches} micro-batches, layers {layers}"


def _numbers(c: TrainConfig) -> str:
    """'float32 on the CPU, bfloat16 in products'."""
    place = "the CPU" if c.device == "cpu" else "a GPU"
    products = "" if c.precision == "full" else f", {c.precision} in products"
    return f"{c.dtype} on {place}{products}"


def _show_end(screen: Console, trainer: Trainer, out: Path, record: dict[str, Any], first: int,
              seconds: float, ledger: Ledger) -> None:  # fmt: skip
    c, records = trainer.config, read(out / "metrics.jsonl")
    done = int(record["step"]) - first
    loss_curve(records, out / "loss.png", f"{c.model} on {c.data}, {trainer.comm.size} ranks",
               float(np.log(data.VOCAB)))  # fmt: skip
    screen.print(
        f"{seconds:.1f} s, {done * c.batch * c.seq / seconds:,.0f} tokens/s, "
        f"loss {records[0]['loss']:.4f} -> {record['loss']:.4f}; "
        f"rank 0 sent {ledger.bytes / 2**20:,.1f} MiB in {ledger.messages:,} messages"
    )
    screen.print(perplexity_line(record["val_loss"]))


def _sample(trainer: Trainer) -> np.ndarray | None:
    """What the model writes, through all its stages: every rank calls it."""
    how = trainer.config.sample, TEMPERATURE, TOP_K, trainer.config.seed
    return trainer.sample(data.encode(PROMPT), *how) if trainer.config.sample else None


def _show_sample(screen: Console, sample: np.ndarray | None) -> None:
    assert sample is not None, "rank 0 is of the first replica"
    screen.rule("sample", align="left")
    screen.print(data.decode(sample), markup=False)
    screen.rule()
