"""Compile the loops that a run will use before its first step, so that no step waits for one.

A model of one layer and one attention head, with the run's other options, takes one step, is
evaluated and generates one byte. That calls each loop once. The loops are compiled one by one and
kept on disk (kernels/loops.py); ranks that start together wait for each other's, so each is
compiled once. When all are kept already, this takes a tenth of a second. The little model shares
nothing with the run's: weights, batches and dropout follow from seeds and names, not from state.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace

from .. import data
from ..comm.comm_self import CommSelf
from ..kernels import loops
from .config import TrainConfig
from .loop import Trainer

_done: set[TrainConfig] = set()  # in this process


def little(c: TrainConfig) -> TrainConfig:
    """The run's options, for the little model on one rank."""
    width = c.shape["hidden"] // c.shape["heads"]
    return replace(
        c, layers=1, heads=1, hidden=width, batch=2, ranks=None, simulate=False, dp=1, tp=1, pp=1,
        sequence_parallel=False, schedule="1f1b", chunks=None, split=None, zero=0, out=None,
        resume=False, microbatches=2 if c.microbatches != 1 else 1, seed=0, steps=1, lr=1e-3,
    )  # fmt: skip


def warm_up(c: TrainConfig, corpus: data.Corpus, say: Callable[[str], None]) -> None:
    """Compile what is not kept yet, or wait for the rank that does; `say` is given a line before
    the first is compiled, and one after the last."""
    small = little(c)
    if small in _done or c.device != "cpu":
        return
    compiled: list[str] = []

    def note(name: str) -> None:
        if not compiled:
            say("compiling the loops of the kernels; later runs find them on disk")
        compiled.append(name)

    start = time.perf_counter()
    with loops.announced(note):
        trainer = Trainer(small, CommSelf(), corpus)
        trainer.step(0)
        trainer.evaluate(1)
        trainer.sample(data.encode(c.prompt, corpus.encoding), 1, 1.0, 1, c.seed)
    if compiled:
        say(f"{len(compiled)} compiled in {time.perf_counter() - start:.1f} s")
    _done.add(small)
