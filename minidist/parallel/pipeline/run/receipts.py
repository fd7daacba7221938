"""Which of a rank's sends have arrived: a message from another rank proves what it had received.

A send needs its array until the message has arrived. Asking MPI for that takes time, and waiting
takes more. But a rank receives a message before the step that needs it. So if it sends something
after that step, and its message comes back, then the first message has arrived and its array can be
freed. The lists of a schedule say all of this in advance.
"""

from __future__ import annotations

from collections import defaultdict

from ....comm import Request
from ..actions import SENDS, Action, Schedule
from ..needs import receive_for

IN_EVALUATION = 2  # the most unfinished sends to a rank when no message ever comes back


class Receipts:
    """The schedule as one rank sees it: at which step of the other rank each of its messages is.

    `needed[message]`: the step of the receiver that needs a message of this rank.
    `sent[message]`: the step of the sender that sends a message to this rank.
    """

    def __init__(self, schedule: Schedule, rank: int):
        self.needed: dict[Action, int] = {}
        self.sent: dict[Action, int] = {}
        self.has_backward = schedule.has_backward
        owner = schedule.rank_of
        for peer in range(schedule.ranks):
            for number, step in enumerate(schedule.orders[peer] if peer != rank else ()):
                for part in step.parts:
                    receive = receive_for(part)
                    if receive is not None and owner.get(receive.source) == rank:
                        self.needed[receive] = number
                    elif part.kind in SENDS and owner.get(part.received.stage) == rank:
                        self.sent[part.received] = number


class Sending:
    """The sends of one run that are not known to have arrived; their requests keep the arrays."""

    def __init__(self, receipts: Receipts):
        self.receipts = receipts
        self.to: dict[int, list[tuple[int, Request]]] = defaultdict(list)  # (needed at step, send)

    def add(self, message: Action, dest: int, request: Request) -> None:
        pending = self.to[dest]
        pending.append((self.receipts.needed[message], request))
        if not self.receipts.has_backward and len(pending) > IN_EVALUATION:
            pending.pop(0)[1].wait()

    def message_came(self, message: Action, source: int) -> None:
        """Free the sends that `source` needed before it sent this message."""
        number, left = self.receipts.sent[message], []
        for needed, request in self.to[source]:
            if needed < number:
                request.wait()  # returns at once: the message has arrived
            else:
                left.append((needed, request))
        self.to[source] = left

    def finish(self) -> None:
        """Wait for all sends that are left."""
        for requests in self.to.values():
            for _, request in requests:
                request.wait()
