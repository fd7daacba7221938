"""Many ranks in one process: deterministic, replayable, and a deadlock is an error, not a hang."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TypeVar

import numpy as np

from .collectives.gathering import all_gather
from .communicator import Communicator
from .hub import Half, Hub
from .threads import one_blas_thread

T = TypeVar("T")


def simulate(
    fn: Callable[[Communicator], T], size: int, *, seed: int | None = None, eager_limit: int = 0
) -> list[T]:
    """Run `fn(comm)` on `size` ranks and return their results in rank order.

    Ranks take turns in a fixed order, or in one drawn from `seed`. A message of up to
    `eager_limit` bytes leaves at once; a longer one waits for its receiver.
    """
    if size < 1:
        raise ValueError(f"simulate(size={size}): needs at least one rank")
    hub = Hub(size, seed, eager_limit)
    ranks = tuple(range(size))
    with one_blas_thread():
        return hub.run([partial(fn, SimulatedCommunicator(hub, ranks, rank)) for rank in ranks])


class SimulatedCommunicator(Communicator):
    """A group of simulated ranks; `ranks` are their numbers in the world."""

    def __init__(self, hub: Hub, ranks: tuple[int, ...], rank: int, context: tuple = ()):
        self.hub, self.ranks, self.rank, self.context = hub, ranks, rank, context
        self.size = len(ranks)
        self.splits = 0

    def _isend(self, array: np.ndarray, dest: int, tag: int) -> Half:
        return self._post("send", array, dest, (self.context, self.rank, dest, tag))

    def _irecv(self, out: np.ndarray, source: int, tag: int) -> Half:
        return self._post("recv", out, source, (self.context, source, self.rank, tag))

    def _post(self, verb: str, array: np.ndarray, peer: int, channel: tuple) -> Half:
        rank, peer = self.ranks[self.rank], self.ranks[peer]
        return self.hub.post(Half(self.hub, verb, array, rank, peer, channel))

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
        return SimulatedCommunicator(self.hub, world, ranks.index(self.rank), context)

    def _exchange(self, row: np.ndarray) -> list[list[int]]:
        """Everyone's row, over a communicator of its own: no ledger, no tag of the user's."""
        context = (*self.context, self.splits, "split")
        aside = SimulatedCommunicator(self.hub, self.ranks, self.rank, context)
        return all_gather(aside, row, [row.size] * self.size).reshape(self.size, -1).tolist()
