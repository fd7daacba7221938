"""Many ranks in one process: deterministic, replayable, and a deadlock is an error, not a hang."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypeVar

import numpy as np

from ..collectives.gathering import all_gather
from ..communicator import Communicator
from ..guard.fingerprint import Fingerprint
from ..settings import debug_level
from ..threads import one_blas_thread
from .clock import Clock
from .scheduler import Hub
from .tasks import Half, Task

T = TypeVar("T")


def simulate(
    fn: Callable[[Communicator], T], size: int, *, seed: int | None = None, eager_limit: int = 0,
    clock: Clock | None = None, debug: int | None = None,
) -> list[T]:  # fmt: skip
    """Run `fn(comm)` on `size` ranks and return their results in rank order.

    Ranks take turns in a fixed order, or in one drawn from `seed`. A message of up to
    `eager_limit` bytes leaves at once; a longer one waits for its receiver. With a `clock` they run
    in the order of its times, and it tells what all that would cost. `debug` is MINIDIST_DEBUG's.

    Raises DeadlockError when no rank can go on, UnmatchedError for a message that nobody took,
    MismatchError where ranks call different collectives (debug) or sizes; and what a rank raises.
    """
    if size < 1:
        raise ValueError(f"simulate(size={size}): needs at least one rank")
    hub = Hub(size, seed, eager_limit, clock)
    ranks, debug = tuple(range(size)), debug_level() if debug is None else debug
    comms = [SimulatedCommunicator(hub, ranks, rank, debug) for rank in ranks]
    with one_blas_thread():
        return hub.run([partial(fn, comm) for comm in comms])


class SimulatedCommunicator(Communicator):
    """A group of simulated ranks."""

    def __init__(
        self, hub: Hub, ranks: tuple[int, ...], rank: int, debug: int = 0, context: tuple = ()
    ):
        self.hub, self.ranks, self.rank, self.context = hub, ranks, rank, context
        self.size, self.debug = len(ranks), debug
        self.splits = 0

    def reducing(self, combine: np.ufunc) -> Any:
        if self.hub.clock is None:
            return combine

        def counted(a: np.ndarray, b: np.ndarray, out: np.ndarray) -> np.ndarray:
            self.compute(out.size)
            return combine(a, b, out=out)

        return counted

    def compute(self, flops: float) -> None:
        if self.hub.clock is not None:
            self.hub.turn(self.ranks[self.rank]).time += self.hub.clock.gamma * flops

    def time(self) -> float:
        task = self.hub.turn(self.ranks[self.rank])
        return task.time if self.hub.clock is not None else time.perf_counter()

    def _isend(self, array: np.ndarray, dest: int, tag: int, synchronous: bool) -> Half:
        verb = "ssend" if synchronous else "send"
        return self._post(verb, array, dest, (self.context, self.rank, dest, tag))

    def _irecv(self, out: np.ndarray, source: int, tag: int) -> Half:
        return self._post("recv", out, source, (self.context, source, self.rank, tag))

    def _post(self, verb: str, array: np.ndarray, peer: int, channel: tuple) -> Half:
        rank, peer = self.ranks[self.rank], self.ranks[peer]
        return self.hub.post(Half(self.hub, verb, array, rank, peer, channel))

    def _start(self, main: Callable[[], Any], call: str) -> Task:
        return self.hub.spawn(self.ranks[self.rank], main, call)

    def _check(self, mine: Fingerprint) -> None:
        self.hub.turn(self.ranks[self.rank])
        self.hub.check((self.context, mine.number), self.size, mine, self.debug > 1)

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
        return SimulatedCommunicator(self.hub, world, ranks.index(self.rank), self.debug, context)

    def _exchange(self, row: np.ndarray) -> list[list[int]]:
        """Everyone's row, over a communicator of its own: no ledger, no tag of the user's."""
        context = (*self.context, self.splits, "split")
        aside = SimulatedCommunicator(self.hub, self.ranks, self.rank, 0, context)
        return all_gather(aside, row, [row.size] * self.size).reshape(self.size, -1).tolist()
