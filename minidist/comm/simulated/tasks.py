"""What the scheduler of simulated ranks runs and joins: tasks, and the halves of messages."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import copy_context
from typing import TYPE_CHECKING, Any

import numpy as np
from greenlet import greenlet

from ..communicator import Request

if TYPE_CHECKING:
    from .scheduler import Hub


class Half(Request):
    """One side of a message: a send or a receive that looks for its partner.

    `rank` and `peer` are world ranks; `channel` is (communicator, source, dest, tag); `time` is
    when it was posted, and once it is done, when that was.
    """

    __slots__ = (
        "array", "arrives", "channel", "done", "error", "hub", "number", "partner", "peer", "rank",
        "time", "travels", "verb", "waiter",
    )  # fmt: skip

    def __init__(
        self, hub: Hub, verb: str, array: np.ndarray, rank: int, peer: int, channel: tuple
    ):
        self.hub, self.verb, self.array = hub, verb, array
        self.rank, self.peer, self.channel = rank, peer, channel
        self.done, self.time, self.arrives, self.number = False, 0.0, 0.0, hub.posted
        hub.posted += 1
        self.travels, self.partner = False, None  # type: bool, Half | None
        self.waiter: Task | None = None
        self.error: Exception | None = None

    def wait(self) -> np.ndarray:
        self.hub.wait(self)
        if self.error is not None:
            raise self.error
        return self.array

    def is_completed(self) -> bool:
        return self.hub.is_completed(self)

    @property
    def call(self) -> str:
        """`recv(source=0, tag=0)`, as the user wrote it."""
        _, source, dest, tag = self.channel
        side, number = ("source", source) if self.verb == "recv" else ("dest", dest)
        world = "" if number == self.peer else f" (world rank {self.peer})"
        return f"{self.verb}({side}={number}{world}, tag={tag})"


def _nothing() -> None:
    return None


class Task(Request):
    """A rank's program, or a collective that it has started and that goes on beside it."""

    def __init__(self, hub: Hub, rank: int, main: Callable[[], Any], call: str, time: float):
        self.hub, self.rank, self.call, self.time = hub, rank, call, time
        self.main, self.result, self.done = main, None, False
        self.waiter: Task | None = None
        self.greenlet = greenlet(self._body, parent=hub.here)
        self.greenlet.gr_context = copy_context()

    def _body(self) -> None:
        self.result = self.main()
        self.main = _nothing  # or its arguments would live as long as this
        self.hub.beside.discard(self)
        self.hub.finish(self, self.time)

    def wait(self) -> Any:
        self.hub.wait(self)
        return self.result

    def is_completed(self) -> bool:
        return self.hub.is_completed(self)
