"""simulate(): many ranks in one process, replayable, where a deadlock is an error, not a hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ...kernels import blas
from ..collectives.all_gather import all_gather
from ..communicator import Communicator
from ..environment import debug_level
from ..guard.fingerprint import Fingerprint
from .clock import Clock
from .requests import MessageEnd, Receive, Send, SynchronousSend, Task
from .scheduler import Scheduler

T = TypeVar("T")


def simulate(
    fn: Callable[[Communicator], T], size: int, *, seed: int | None = None, eager_limit: int = 0,
    clock: Clock | None = None, debug: int | None = None,
) -> list[T]:  # fmt: skip
    """Run `fn(comm)` on `size` ranks and return their results in rank order.

    Ranks take turns in a fixed order, or in one drawn from `seed`. A message of up to
    `eager_limit` bytes leaves at once; a longer one waits for its receiver. With a `clock` the
    ranks run in the order of its times, and the clock says how long the program would take. `debug`
    is the level that MINIDIST_DEBUG otherwise gives.

    Raises DeadlockError when no rank can go on, UnmatchedError for a message that no rank
    received, MismatchError if ranks call different collectives (in debug mode) or a message does
    not fit; and any error that a rank raises.
    """
    if size < 1:
        raise ValueError(f"simulate(size={size}): needs at least one rank")
    scheduler = Scheduler(size, seed, eager_limit, clock)
    ranks, debug = tuple(range(size)), debug_level() if debug is None else debug
    comms = [SimulatedCommunicator(scheduler, ranks, rank, debug) for rank in ranks]
    blas.settle()
    with blas.limit():  # also where the program has changed it since
        return scheduler.run([partial(fn, comm) for comm in comms])


class SimulatedCommunicator(Communicator):
    """A group of simulated ranks."""

    def __init__(
        self, scheduler: Scheduler, ranks: tuple[int, ...], rank: int, debug: int = 0,
        context: tuple = (),
    ):  # fmt: skip
        self.scheduler, self.ranks, self.rank = scheduler, ranks, rank
        self.context = context  # names this communicator among those of the world
        self.size, self.debug = len(ranks), debug
        self.splits = 0

    def reducing(self, combine: np.ufunc) -> Any:
        if self.scheduler.clock is None:
            return combine

        def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
            self.compute(out.size)
            return combine(a, b, out=out)

        return counted

    def compute(self, flops: float) -> None:
        if self.scheduler.clock is not None:
            self.scheduler.running(self.ranks[self.rank]).time += self.scheduler.clock.gamma * flops

    def time(self) -> float:
        task = self.scheduler.running(self.ranks[self.rank])
        return task.time if self.scheduler.clock is not None else time.perf_counter()

    def _isend(self, array: np.ndarray, dest: int, tag: int, synchronous: bool) -> MessageEnd:
        kind = SynchronousSend if synchronous else Send
        return self._post(kind, array, dest, (self.context, self.rank, dest, tag))

    def _irecv(self, out: np.ndarray, source: int, tag: int) -> MessageEnd:
        return self._post(Receive, out, source, (self.context, source, self.rank, tag))

    def _post(
        self, kind: type[MessageEnd], array: np.ndarray, peer: int, channel: tuple
    ) -> MessageEnd:
        rank, peer = self.ranks[self.rank], self.ranks[peer]
        return self.scheduler.post(kind(self.scheduler, array, rank, peer, channel))

    def _start(self, main: Callable[[], Any], call: str) -> Task:
        return self.scheduler.spawn(self.ranks[self.rank], main, call)

    def _check(self, mine: Fingerprint) -> None:
        self.scheduler.running(self.ranks[self.rank])
        self.scheduler.check((self.context, mine.number), self.size, mine, self.debug > 1)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        # Every rank counts its own splits. They agree because split is called by all, in order.
        self.splits += 1
        table = self._exchange(np.array([-1 if color is None else color, key], dtype=np.int64))
        if color is None:
            return None
        members = sorted((k, r) for r, (c, k) in enumerate(table) if c == color)
        ranks = [r for _, r in members]
        context = (*self.context, self.splits, color)
        world = tuple(self.ranks[r] for r in ranks)
        return SimulatedCommunicator(
            self.scheduler, world, ranks.index(self.rank), self.debug, context
        )

    def _exchange(self, row: np.ndarray) -> list[list[int]]:
        """Every rank's row, over a separate communicator that no ledger counts."""
        context = (*self.context, self.splits, "split")
        aside = SimulatedCommunicator(self.scheduler, self.ranks, self.rank, 0, context)
        return all_gather(aside, row, [row.size] * self.size).reshape(self.size, -1).tolist()
