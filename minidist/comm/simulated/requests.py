"""The requests of simulated ranks: a send, a receive, and a task, which is a program that runs."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from greenlet import greenlet

from ..communicator import Request


class RequestScheduler(Protocol):
    """The scheduler, as far as a request needs to know it."""

    def wait(self, request: Pending) -> None: ...

    def is_completed(self, request: Pending) -> bool: ...


class Pending(Request):
    """An operation of rank `rank` (a number in the world) that the scheduler completes."""

    scheduler: RequestScheduler
    rank: int
    time = 0.0  # when it was posted; once it is done, when it was completed
    done = False
    waiter: Task | None = None  # the task that waits for it

    def is_completed(self) -> bool:
        return self.scheduler.is_completed(self)


class MessageEnd(Pending):
    """A send or a receive, which looks for its partner in the same channel.

    `peer` is the other rank's number in the world; `channel` is (communicator, source, dest, tag).
    """

    verb = side = ""
    number = 0  # the order in which the ranks posted
    error: Exception | None = None

    def __init__(
        self, scheduler: RequestScheduler, array: np.ndarray, rank: int, peer: int, channel: tuple
    ):
        self.scheduler, self.array = scheduler, array
        self.rank, self.peer, self.channel = rank, peer, channel

    def wait(self) -> np.ndarray:
        self.scheduler.wait(self)
        if self.error is not None:
            raise self.error
        return self.array

    @property
    def call(self) -> str:
        """`recv(source=0, tag=0)`, as the user wrote it."""
        _, source, dest, tag = self.channel
        number = source if self.side == "source" else dest
        world = "" if number == self.peer else f" (world rank {self.peer})"
        return f"{self.verb}({self.side}={number}{world}, tag={tag})"


class Receive(MessageEnd):
    verb, side = "recv", "source"


class Send(MessageEnd):
    """`travels`: the clock carries the message; `arrives`: when it is, or was, at its receiver."""

    verb, side = "send", "dest"
    travels, arrives = False, 0.0
    partner: Receive | None = None


class SynchronousSend(Send):
    verb = "ssend"


class Task(Pending):
    """A greenlet: a rank's program (`call` is ""), or a nonblocking collective that it started."""

    greenlet: greenlet

    def __init__(self, scheduler: RequestScheduler, rank: int, call: str, time: float):
        self.scheduler, self.rank, self.call, self.time = scheduler, rank, call, time
        self.result: Any = None

    def wait(self) -> Any:
        self.scheduler.wait(self)
        return self.result
