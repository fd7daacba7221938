"""The order of events: which ready task runs next, and which message starts next."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random

from .clock import Clock
from .requests import Send, Task

RUNNING, STARTING, POLLING = range(3)  # tasks, messages, pollers: the order at equal times


class RoundRobin:
    """Ready tasks in turn: first come, first served; with `draw`, in random order."""

    def __init__(self, draw: Random | None = None):
        self.draw = draw
        self.line: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self.line)

    def put(self, task: Task, first: bool = False, polls: bool = False) -> None:
        self.line.appendleft(task) if first else self.line.append(task)

    def take(self) -> Task:
        if self.draw is not None:
            self.line.rotate(-self.draw.randrange(len(self.line)))
        return self.line.popleft()

    def earlier_than(self, task: Task) -> bool:
        return False

    def first(self) -> None:
        return None

    def next_time(self) -> None:
        return None


class ByTime:
    """Ready tasks on a virtual clock: the earliest first; with `draw`, equal times in random order.

    So messages are posted in the order of their times. If two want the same port, the one that is
    ready first gets it.
    """

    def __init__(self, draw: Random | None = None):
        self.draw, self.numbers = draw, count(1)
        self.heap: list[tuple[float, int, float, int, Task]] = []

    def __len__(self) -> int:
        return len(self.heap)

    def put(self, task: Task, first: bool = False, polls: bool = False) -> None:
        tie = 0.0 if self.draw is None else self.draw.random()
        number = next(self.numbers) * (-1 if first else 1)
        heapq.heappush(self.heap, (task.time, POLLING if polls else RUNNING, tie, number, task))

    def take(self) -> Task:
        return heapq.heappop(self.heap)[-1]

    def earlier_than(self, task: Task) -> bool:
        return bool(self.heap) and self.heap[0][0] < task.time

    def first(self) -> tuple[float, int] | None:
        """The time of the next task, and its place among events at that time."""
        return self.heap[0][:2] if self.heap else None

    def next_time(self) -> float | None:
        """The time of the next task that does more than poll."""
        return min((time for time, kind, *_ in self.heap if kind == RUNNING), default=None)


class Wire:
    """Messages that could start: by time, then by source, then in the order they were posted.

    A message starts only when all tasks have come to its time, so the order in which tasks run
    does not decide which message gets a port.
    """

    def __init__(self, clock: Clock | None):
        self.clock = clock
        self.heap: list[tuple[float, int, int, Send]] = []

    def __len__(self) -> int:
        return len(self.heap)

    def put(self, send: Send) -> None:
        heapq.heappush(self.heap, (send.time, send.rank, send.number, send))

    def next_time(self) -> float | None:
        return self.heap[0][0] if self.heap else None

    def is_next(self, ready: tuple[float, int] | None) -> bool:
        """Whether a message starts before the next task runs."""
        return bool(self.heap) and (ready is None or (self.heap[0][0], STARTING) < ready)

    def take(self) -> tuple[Send, float]:
        """The next message, and when it arrives."""
        assert self.clock is not None
        start, *_, send = heapq.heappop(self.heap)
        return send, self.clock.carry(send.rank, send.peer, send.array.nbytes, start)
