"""Which of a rank's sends have arrived: what comes back from a rank proves what it had taken.

A rank takes a message before the step that needs it. So a message that it sends after that step
tells that the first one has arrived, and that its array may go: nobody need ask or wait.
"""

from __future__ import annotations

from collections import defaultdict

from ....comm import Request
from ..actions import SENDS, Action, Schedule

IN_EVALUATION = 2  # sends under way where nothing comes back


class Receipts:
    """For a rank's messages of a schedule: the step of the other rank that takes or sends each."""

    def __init__(self, schedule: Schedule, rank: int):
        self.taken: dict[Action, int] = {}
        self.sent: dict[Action, int] = {}
        self.keeps = schedule.has_backward
        owner = schedule.rank_of
        for peer in range(schedule.ranks):
            for number, step in enumerate(schedule.orders[peer] if peer != rank else ()):
                for part in step.parts:
                    if part.need is not None and owner.get(part.need.source) == rank:
                        self.taken[part.need] = number
                    elif part.kind in SENDS and owner.get(part.received.stage) == rank:
                        self.sent[part.received] = number


class Sending:
    """The sends of one run that are not known to have arrived; they hold their arrays."""

    def __init__(self, receipts: Receipts):
        self.receipts = receipts
        self.to: dict[int, list[tuple[int, Request]]] = defaultdict(list)

    def add(self, message: Action, dest: int, request: Request) -> None:
        mine = self.to[dest]
        mine.append((self.receipts.taken[message], request))
        if not self.receipts.keeps and len(mine) > IN_EVALUATION:
            mine.pop(0)[1].wait()

    def proved(self, message: Action, source: int) -> None:
        """A message has come: what its sender had taken before may go."""
        number, left = self.receipts.sent[message], []
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
