"""The scheduler of simulated ranks: runs them one at a time and joins sends with receives."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict, deque
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

import numpy as np
from greenlet import GreenletExit, getcurrent, greenlet

from . import deadlock
from .communicator import Request, describe
from .errors import CommError, DeadlockError, MismatchError, UnmatchedError


class Half(Request):
    """One side of a message: a send or a receive that looks for its partner.

    `rank` and `peer` are world ranks; `channel` is (communicator, source, dest, tag).
    """

    def __init__(
        self, hub: Hub, verb: str, array: np.ndarray, rank: int, peer: int, channel: tuple
    ):
        self.hub, self.verb, self.array = hub, verb, array
        self.rank, self.peer, self.channel = rank, peer, channel
        self.done = False
        self.error: Exception | None = None

    def wait(self) -> np.ndarray:
        self.hub.wait(self)
        if self.error is not None:
            raise self.error
        return self.array

    @property
    def call(self) -> str:
        """`recv(source=0, tag=0)`, as the user wrote it."""
        _, source, dest, tag = self.channel
        side, number = ("dest", dest) if self.verb == "send" else ("source", source)
        world = "" if number == self.peer else f" (world rank {self.peer})"
        return f"{self.verb}({side}={number}{world}, tag={tag})"


class Hub:
    """Ranks as greenlets: each runs until it must wait, then the next ready one is chosen."""

    def __init__(self, size: int, seed: int | None = None, eager_limit: int = 0):
        self.size, self.eager_limit = size, eager_limit
        self.random = None if seed is None else random.Random(seed)
        self.here = getcurrent()
        self.greenlets: list[greenlet] = []
        self.ready = deque(range(size))
        self.blocked: dict[int, Half] = {}
        self.waiting: dict[tuple, deque[Half]] = defaultdict(deque)  # sends or receives, never both
        self.closed = False

    def run(self, mains: list[Callable[[], Any]]) -> list[Any]:
        """Run every rank to its end; `mains[rank]()` is what rank does."""
        results: list[Any] = [None] * self.size
        self.greenlets = [self._greenlet(rank, main, results) for rank, main in enumerate(mains)]
        try:
            while self.ready:
                self._step(self._choose())
            self._check_finished()
        finally:
            self._kill()
        return results

    def post(self, half: Half) -> Half:
        """Join with the partner if it is there already, else wait in line for it."""
        self._check_turn(half.rank)
        self._pause(half.rank)
        line = self.waiting[half.channel]
        if line and line[0].verb != half.verb:
            self._join(line.popleft(), half)
            return half
        line.append(half)
        if half.verb == "send" and half.array.nbytes <= self.eager_limit > 0:
            half.array, half.done = half.array.copy(), True
        return half

    def wait(self, half: Half) -> None:
        """Let others run until `half` is done."""
        self._check_turn(half.rank)
        if not half.done:
            self.blocked[half.rank] = half
            self.here.switch()

    def _pause(self, rank: int) -> None:
        # Without this a seed would reorder only the ranks that block: a buffer that is touched
        # before its wait would go unnoticed on every seed.
        if self.random is not None:
            self.ready.append(rank)
            self.here.switch()

    def _join(self, first: Half, second: Half) -> None:
        send, receive = (first, second) if first.verb == "send" else (second, first)
        receive.error = _mismatch(send, receive)
        if receive.error is None:
            np.copyto(receive.array, send.array.reshape(receive.array.shape))
        for half in (first, second):
            half.done = True
            if self.blocked.get(half.rank) is half:
                del self.blocked[half.rank]
                self.ready.append(half.rank)

    def _greenlet(self, rank: int, main: Callable[[], Any], results: list[Any]) -> greenlet:
        def body() -> None:
            results[rank] = main()

        body_greenlet = greenlet(body, parent=self.here)
        body_greenlet.gr_context = copy_context()
        return body_greenlet

    def _choose(self) -> int:
        if self.random is not None:
            self.ready.rotate(-self.random.randrange(len(self.ready)))
        return self.ready.popleft()

    def _step(self, rank: int) -> None:
        try:
            self.greenlets[rank].switch()
        except BaseException as error:
            error.add_note(f"raised on simulated rank {rank} of {self.size}")
            raise

    def _check_turn(self, rank: int) -> None:
        if getcurrent() is not self.greenlets[rank]:
            raise CommError(
                f"the communicator of simulated rank {rank} was used from outside that rank: "
                "let each rank use the `comm` it was called with, and only while it runs"
            )
        if self.closed:
            raise GreenletExit

    def _check_finished(self) -> None:
        if self.blocked:
            raise DeadlockError(deadlock.explain(self))
        left = [half for line in self.waiting.values() for half in line]
        if left:
            raise UnmatchedError("\n".join(["all ranks returned, but", *map(_left_over, left)]))

    def _kill(self) -> None:
        self.closed = True
        for each in self.greenlets:
            if each.dead:
                continue
            with contextlib.suppress(Exception):  # a rank's clean-up must not hide the first error
                each.throw(GreenletExit)


def _left_over(half: Half) -> str:
    missing = "was never received" if half.verb == "send" else "never got its message"
    return f"  rank {half.rank} {half.call} of {describe(half.array)} {missing}"


def _mismatch(send: Half, receive: Half) -> MismatchError | None:
    if send.array.dtype == receive.array.dtype and send.array.size == receive.array.size:
        return None
    return MismatchError(
        f"rank {receive.rank} {receive.call} got {describe(send.array)} "
        f"from rank {send.rank} {send.call}, but `out` is {describe(receive.array)}: "
        "make `out` with the sender's dtype and number of elements"
    )
