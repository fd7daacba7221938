"""Which of the ready tasks runs next: each in turn, by a drawn order, or the earliest first."""

from __future__ import annotations

import heapq
from collections import deque
from itertools import count
from random import Random

from .tasks import Task


class InTurn:
    """First come, first served; with `draw`, any of them."""

    def __init__(self, draw: Random | None = None):
        self.draw = draw
        self.line: deque[Task] = deque()

    def __len__(self) -> int:
        return len(self.line)

    def put(self, task: Task, first: bool = False) -> None:
        self.line.appendleft(task) if first else self.line.append(task)

    def take(self) -> Task:
        if self.draw is not None:
            self.line.rotate(-self.draw.randrange(len(self.line)))
        return self.line.popleft()

    def earlier_than(self, task: Task) -> bool:
        return False

    def next_time(self) -> float | None:
        return None


class ByTime:
    """The task whose clock shows least; among equals the first, with `draw` any of them.

    So messages are posted in the order of their times, and a port that two of them want goes to
    the one that is there first.
    """

    def __init__(self, draw: Random | None = None):
        self.draw, self.numbers = draw, count(1)
        self.heap: list[tuple[float, float, int, Task]] = []

    def __len__(self) -> int:
        return len(self.heap)

    def put(self, task: Task, first: bool = False) -> None:
        tie = 0.0 if self.draw is None else self.draw.random()
        number = next(self.numbers) * (-1 if first else 1)
        heapq.heappush(self.heap, (task.time, tie, number, task))

    def take(self) -> Task:
        return heapq.heappop(self.heap)[-1]

    def earlier_than(self, task: Task) -> bool:
        return bool(self.heap) and self.heap[0][0] < task.time

    def next_time(self) -> float | None:
        return self.heap[0][0] if self.heap else None
