"""Which of a rank's sends have arrived: what comes back from a rank proves what it had taken.

A rank takes a message before the step that needs it. So a message that it sends after that step
tells that the first one has arrived, and that its array may go: nobody need ask or wait.
"""

from __future__ import annotations

from collections import defaultdict

from ...comm import Request
from .actions import BACKWARD, FORWARD, INPUT, RECV_B, RECV_F, SEND_B, SEND_F, Schedule

Key = tuple[str, int, int]  # a message, by its receive: kind, stage, micro-batch
IN_EVALUATION = 2  # sends under way where nothing comes back


class Receipts:
    """For a rank's messages of a schedule: the step of the other rank that takes or sends each."""

    def __init__(self, schedule: Schedule, rank: int):
        self.taken: dict[Key, int] = {}
        self.sent: dict[Key, int] = {}
        self.keeps = schedule.has_backward
        owner = schedule.rank_of
        needs = {FORWARD: (RECV_F, -1), INPUT: (RECV_B, 1), BACKWARD: (RECV_B, 1)}
        gives = {SEND_F: (RECV_F, 1), SEND_B: (RECV_B, -1)}
        for peer in range(schedule.ranks):
            for number, step in enumerate(schedule.orders[peer] if peer != rank else ()):
                for stage, kind, i in step.parts:
                    if kind in needs and owner.get(stage + needs[kind][1]) == rank:
                        self.taken[needs[kind][0], stage, i] = number
                    elif kind in gives and owner.get(stage + gives[kind][1]) == rank:
                        self.sent[gives[kind][0], stage + gives[kind][1], i] = number


class Sending:
    """The sends of one run that are not known to have arrived; they hold their arrays."""

    def __init__(self, receipts: Receipts):
        self.receipts = receipts
        self.to: dict[int, list[tuple[int, Request]]] = defaultdict(list)

    def add(self, key: Key, dest: int, request: Request) -> None:
        mine = self.to[dest]
        mine.append((self.receipts.taken[key], request))
        if not self.receipts.keeps and len(mine) > IN_EVALUATION:
            mine.pop(0)[1].wait()

    def proved(self, key: Key, source: int) -> None:
        """A message has come: what its sender had taken before may go."""
        number, left = self.receipts.sent[key], []
        for taken, request in self.to[source]:
            if taken < number:
                request.wait()
            else:
                left.append((taken, request))
        self.to[source] = left

    def finish(self) -> None:
        """Wait for the others."""
        for requests in self.to.values():
            for _, request in requests:
                request.wait()
