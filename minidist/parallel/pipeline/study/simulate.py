"""Simulate a schedule: its times, bubbles, live activations and messages, without running it.

How it works, in five lines:
1. Each rank walks its list as far as it can. Computing takes time (Costs), posting a message none.
2. A step that waits for a message stops its rank's walk.
3. When both sides have posted a message, it may start; the wire is a heap of such messages.
4. The earliest message of the heap is carried on the virtual clock (comm.Clock), and its receiver
   walks on from there.
5. The rest is arithmetic on the starts and ends of the steps: class Simulated.

(`minidist.comm.simulate` is another thing: it runs a program on simulated ranks.)
"""

from __future__ import annotations

import heapq
from collections import Counter, defaultdict, deque
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple

from ....comm.simulated.clock import Clock
from ....errors import UserError
from ..actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    MESSAGES,
    SENDS,
    WEIGHT,
    Action,
    Overlap,
    Schedule,
    Step,
)
from ..check.messages import with_messages
from ..needs import receive_for
from .costs import UNIT, Costs, PerStage, at, check_each


class Timed(NamedTuple):
    """A step that computes, from its start to its end."""

    step: Step
    start: float
    end: float


def simulate(
    schedule: Schedule, costs: Costs = UNIT, alpha: float = 0, beta: float = 0,
    nbytes: PerStage = 0,
) -> Simulated:  # fmt: skip
    """Predict the times of a valid schedule, on the terms of the virtual clock (comm.Clock).

    A message of n bytes takes α + β·n, once both sides have called and their ports are free.
    `nbytes` is the size of a micro-batch's message at a boundary between stages: one number, or one
    for each boundary. Starting a send or a receive takes no time. A step waits for the message that
    it needs, and the end of the list waits for all sends. Between two stages on the same rank
    nothing is sent and nothing waits. A schedule of computing alone gets its messages first.

    Raises UserError for wrong costs, and if the schedule gets stuck, which a valid one cannot.

    >>> simulate(Schedule.of([["0F0", "0B0"]]), Costs(input=2)).makespan
    4
    """
    schedule = with_messages(schedule)
    if len(schedule.rank_of) < schedule.stages:
        raise UserError("this schedule lacks a stage: validate() says which")
    costs.check(schedule.stages)
    check_each("nbytes", nbytes, schedule.stages - 1, "boundaries")
    for name, value in (("alpha", alpha), ("beta", beta)):
        check_each(name, value, 1, "links")
    run = _Run(schedule, costs, Clock(alpha, beta), nbytes)
    run.to_the_end()
    ends = [max(pair) for pair in zip(run.now, run.sending_until)]
    return Simulated(schedule, costs, run.times, ends, run.sent, run.sent_bytes)


@dataclass(frozen=True)
class Simulated:
    """The times of all steps of a schedule, and the figures that follow from them.

    Each list has one entry for each rank: `times[rank]` are the steps that it computes, with their
    times; `ends[rank]` is when it is done, its sends included; `sent[rank]` counts its messages by
    kind; `sent_bytes[rank]` is their size. `schedule` includes the messages.
    """

    schedule: Schedule
    costs: Costs
    times: list[list[Timed]]
    ends: list[float]
    sent: list[Counter[str]]
    sent_bytes: list[float]

    @property
    def makespan(self) -> float:
        """The time when the last rank is done."""
        return max(self.ends, default=0)

    @cached_property
    def work(self) -> list[float]:
        """The time that each rank computes."""
        return [sum(self.costs.of(timed.step) for timed in times) for times in self.times]

    @property
    def ideal(self) -> float:
        """The busiest rank's work: no order takes less."""
        return max(self.work, default=0)

    @property
    def idle(self) -> list[float]:
        """The time up to the makespan that each rank does not compute."""
        return [self.makespan - work for work in self.work]

    @property
    def span(self) -> list[float]:
        """The time from the start of each rank's first step to the end of its last."""
        return [times[-1].end - times[0].start if times else 0 for times in self.times]

    @property
    def span_bubble(self) -> list[float]:
        """Idle time inside each rank's span: "zero bubble" schedules are named for a 0 in it."""
        return [span - work for span, work in zip(self.span, self.work)]

    @property
    def idle_fraction(self) -> float:
        """The bubble as a share of all ranks' time, (p-1)/(m+p-1) for GPipe (Huang 2019)."""
        whole = self.makespan * len(self.work)
        return 1 - sum(self.work) / whole if whole else 0

    @property
    def bubble_ratio(self) -> float:
        """The bubble over the ideal time, (p-1)/m for GPipe (Narayanan 2021, section 2.2)."""
        return self.makespan / self.ideal - 1 if self.ideal else 0

    def peak_live(self, held_after_input: float = 1) -> list[float]:
        """The most activations that each rank keeps at once, in pairs (stage, micro-batch).

        An activation lives from the start of its F to the end of its B or W. `held_after_input` is
        the share of it that W still needs when I is done.
        """
        part = {FORWARD: 1, INPUT: held_after_input - 1, WEIGHT: -held_after_input, BACKWARD: -1}
        lives = lambda rank: (part.get(action.kind, 0) for action in self.schedule.actions(rank))
        ranks = range(self.schedule.ranks)  # an Overlap's B ends after its F began
        return [max(accumulate(lives(rank), initial=0)) for rank in ranks]

    def peak_microbatches(self, held_after_input: float = 1) -> list[float]:
        """`peak_live` in whole micro-batches: divided by the number of the rank's stages."""
        chunks = (len(self.schedule.stages_of(rank)) or 1 for rank in range(self.schedule.ranks))
        return [peak / n for peak, n in zip(self.peak_live(held_after_input), chunks)]

    @property
    def messages(self) -> int:
        """The number of messages of all ranks."""
        return sum(sent.total() for sent in self.sent)

    @property
    def bytes(self) -> float:
        """The bytes of all messages of all ranks."""
        return sum(self.sent_bytes)


class _Call(NamedTuple):
    """The sender's or the receiver's call for one message."""

    is_send: bool
    message: Action  # named by its receive
    time: float
    number: int


class _Run:
    """Ranks walk their lists as far as they can; then the next message lets its receiver go on.

    Messages start in the order of time, source and posting. The first one in the heap really is the
    next one: a rank that waits posts nothing before the message that it waits for has arrived, and
    that message has not even started.
    """

    def __init__(self, schedule: Schedule, costs: Costs, clock: Clock, nbytes: PerStage):
        ranks = range(schedule.ranks)
        self.costs, self.clock, self.nbytes = costs, clock, nbytes
        self.rank_of = schedule.rank_of
        self.crossings = schedule.crossings
        self.left = [deque(order) for order in schedule.orders]
        self.now: list[float] = [0 for _ in ranks]
        self.sending_until: list[float] = [0 for _ in ranks]
        self.times: list[list[Timed]] = [[] for _ in ranks]
        self.sent: list[Counter[str]] = [Counter() for _ in ranks]
        self.sent_bytes: list[float] = [0 for _ in ranks]
        self.posted = 0
        self.channels: dict[tuple[int, str], deque[_Call]] = defaultdict(deque)
        self.wire: list[tuple[float, int, int, Action]] = []  # start, source, number, message
        self.arrived: dict[Action, float] = {}
        self.known: dict[tuple[int, str], float] = {}  # the cost of each (stage, kind)

    def to_the_end(self) -> None:
        for rank in range(len(self.left)):
            self._walk(rank)
        while self.wire:
            self._deliver(*heapq.heappop(self.wire))
        self._check_finished()

    def _walk(self, rank: int) -> None:
        left = self.left[rank]
        while left and self._do(rank, left[0]):
            left.popleft()

    def _do(self, rank: int, step: Step) -> bool:
        """Do a step, unless a message that it needs has not arrived; return whether it was done."""
        if isinstance(step, Action) and step.kind in MESSAGES:
            self._post(rank, step)
            return True
        start = self.now[rank]
        for message in filter(None, map(self._needed, step.parts)):
            if message not in self.arrived:
                return False
            start = max(start, self.arrived[message])
        end = self.now[rank] = start + self._cost(step)
        self.times[rank].append(Timed(step, start, end))
        return True

    def _needed(self, part: Action) -> Action | None:
        """The message without which an action cannot start."""
        receive = receive_for(part)
        return receive if receive is not None and receive.boundary in self.crossings else None

    def _cost(self, step: Step) -> float:
        if isinstance(step, Overlap):
            return self.costs.of(step)
        key = step.stage, step.kind
        if key not in self.known:
            self.known[key] = self.costs.of(step)
        return self.known[key]

    def _post(self, rank: int, action: Action) -> None:
        """Start the message if the other side has called for it; else put this call in line."""
        is_send = action.kind in SENDS
        message = action.received if is_send else action
        self.posted += 1
        call = _Call(is_send, message, self.now[rank], self.posted)
        if is_send:
            self.sent[rank][action.kind] += 1
            self.sent_bytes[rank] += at(self.nbytes, message.boundary)
        line = self.channels[message.stage, message.kind]
        if line and line[0].is_send != is_send:
            self._start(line.popleft(), call)
        else:
            line.append(call)

    def _start(self, first: _Call, second: _Call) -> None:
        send, receive = (first, second) if first.is_send else (second, first)
        if send.message != receive.message:
            raise UserError(
                f"{receive.message} gets what was sent for {send.message}: receive in the order "
                "of the sends; validate() names the place"
            )
        source = self.rank_of[send.message.source]
        entry = max(first.time, second.time), source, send.number, send.message
        heapq.heappush(self.wire, entry)

    def _deliver(self, start: float, source: int, _: int, message: Action) -> None:
        dest = self.rank_of[message.stage]
        nbytes = at(self.nbytes, message.boundary)
        end = self.clock.carry(source, dest, nbytes, start)  # type: ignore[arg-type]
        self.arrived[message] = end
        self.sending_until[source] = max(self.sending_until[source], end)
        self._walk(dest)

    def _check_finished(self) -> None:
        waits = [f"rank {rank} at {left[0]}" for rank, left in enumerate(self.left) if left]
        calls = [call for line in self.channels.values() for call in line]
        alone = [
            f"{call.message} is only {'sent' if call.is_send else 'received'}" for call in calls
        ]
        if waits or alone:
            raise UserError(
                f"this schedule gets stuck: {'; '.join([*waits, *alone][:8])}: validate() says why"
            )
