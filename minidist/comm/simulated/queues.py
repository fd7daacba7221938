"""What comes next: of the ready tasks in turn, by a drawn order or by time; of messages by time."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random

from .clock import Clock
from .tasks import Half, Task

RUNNING, STARTING, POLLING = range(3)  # tasks, messages, pollers: in this order at one time


class InTurn:
    """First come, first served; with `draw`, any of them."""

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
    """The task whose clock shows least; among equals the first, with `draw` any of them.

    So messages are posted in the order of their times, and a port that two of them want goes to
    the one that is there first.
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
        """When the next one runs, and in what order among what happens then."""
        return self.heap[0][:2] if self.heap else None

    def next_time(self) -> float | None:
        """When the next one runs that does not only poll."""
        return min((time for time, kind, *_ in self.heap if kind == RUNNING), default=None)


class Wire:
    """Messages that could start: by time, then by source and in the order it posted them.

    None starts before all tasks have come to its time, so no schedule decides who gets a port.
    """

    def __init__(self, clock: Clock | None):
        self.clock = clock
        self.heap: list[tuple[float, int, int, Half]] = []

    def __len__(self) -> int:
        return len(self.heap)

    def put(self, send: Half) -> None:
        heapq.heappush(self.heap, (send.time, send.rank, send.number, send))

    def next_time(self) -> float | None:
        return self.heap[0][0] if self.heap else None

    def is_next(self, ready: tuple[float, int] | None) -> bool:
        """Whether a message starts before the next task runs."""
        return bool(self.heap) and (ready is None or (self.heap[0][0], STARTING) < ready)

    def take(self) -> tuple[Half, float]:
        """The next message, and when it arrives."""
        assert self.clock is not None
        start, *_, send = heapq.heappop(self.heap)
        return send, self.clock.carry(send.rank, send.peer, send.array.nbytes, start)
