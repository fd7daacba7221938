"""Dry run: go through the lists of a schedule as far as they go, and say why they go no further.

Nothing is computed or sent. Each rank does the next step of its list as soon as all that the step
needs is done (needs.py). If some rank never gets to its end, the error names the rank, the step and
what is missing, and the circle of ranks that wait for each other if there is one.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from ....comm.simulated.deadlock import find_cycle
from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, OVERLAP, RECEIVES, WEIGHT, Action, Schedule, Step
from ..needs import Needs, result

COST = {FORWARD: 1, INPUT: 1, WEIGHT: 1, BACKWARD: 2, OVERLAP: 3}  # messages take no time


class ScheduleError(UserError):
    """The schedule cannot be run, or it would not give the results of training without it."""


def place(rank: int, number: int, action: Step) -> str:
    """Where an action is; steps are counted from 0, as in orders[rank].

    >>> place(1, 3, Action(1, "F", 0))
    'rank 1, step 3 (1F0)'
    """
    return f"rank {rank}, step {number} ({action})"


class Done(NamedTuple):
    """A step that a rank has done, and when. Sorting puts the earliest end first."""

    end: int
    start: int
    rank: int
    step: Step


class DryRun:
    """All ranks go through their lists; a step is done once all that its parts need is done.

    If the schedule has messages, every send is synchronous and the ranks buffer nothing (rule 4 of
    needs.py).
    """

    def __init__(self, schedule: Schedule):
        self.orders, self.needs = schedule.orders, Needs(schedule)
        self.at = [0] * schedule.ranks  # the number of each rank's next step
        self.now = [0] * schedule.ranks
        self.done: dict[Action, int] = {}  # each result and its time
        self.ready: list[tuple[int, int]] = []  # (start, rank)
        self.waiting: dict[Action, list[int]] = defaultdict(list)  # ranks, by what they wait for

    def run(self) -> Iterator[Done]:
        """Yield every step that can be done, in the order of the starts, then of the ranks.

        F, I and W take one unit of time, B takes two, messages take none.
        """
        for rank in range(len(self.orders)):
            self._offer(rank)
        while self.ready:
            start, rank = heapq.heappop(self.ready)
            step = self.orders[rank][self.at[rank]]
            end = start + COST.get(step.kind, 0)
            yield Done(end, start, rank, step)
            self._finish(rank, step, end)

    def _finish(self, rank: int, step: Step, end: int) -> None:
        self.at[rank] += 1
        self.now[rank] = end
        for part in step.parts:
            made = result(part)
            self.done[made] = end
            for other in self.waiting.pop(made, ()):
                self._offer(other)
        self._offer(rank)

    def _offer(self, rank: int) -> None:
        """Let a rank do its next step, or let it wait for the first result that is missing."""
        if self.at[rank] == len(self.orders[rank]):
            return
        start = self.now[rank]
        for part in self.orders[rank][self.at[rank]].parts:
            for stage, kind in self.needs.of(part):
                need = Action(stage, kind, part.microbatch)
                done = self.done.get(need)
                if done is None:
                    self.waiting[need].append(rank)
                    return
                start = max(start, done)
        heapq.heappush(self.ready, (start, rank))

    def check_finished(self) -> None:
        """Raise ScheduleError unless all lists were run to the end; it names who waits for what."""
        stuck = {rank: need for need, ranks in self.waiting.items() for rank in ranks}
        if stuck:
            raise ScheduleError(self._explain(stuck))

    def _explain(self, stuck: dict[int, Action]) -> str:
        found = {
            result(part): (rank, number, part)
            for rank in stuck
            for number in range(self.at[rank], len(self.orders[rank]))
            for part in self.orders[rank][number].parts
        }
        follows = {rank: found[need][0] for rank, need in stuck.items() if need in found}
        cycle = find_cycle({rank: [other] for rank, other in follows.items()})
        others = [rank for rank in sorted(stuck) if rank not in cycle]
        lines = [_headline(cycle)]
        for rank in cycle + others:
            lines.append(f"  {self._next(rank)} waits for {_which(stuck[rank], found)}")
        return "\n".join([*lines, self._remedy([stuck[rank] for rank in cycle], found)])

    def _next(self, rank: int) -> str:
        return place(rank, self.at[rank], self.orders[rank][self.at[rank]])

    def _remedy(self, needs: list[Action], found: dict[Action, tuple[int, int, Action]]) -> str:
        receives = [found[need] for need in needs if need.kind in RECEIVES]
        if receives:
            rank, _, receive = receives[0]
            return f"post the receive earlier: {receive} before {self._next(rank)}"
        if needs:
            return "let one of these ranks first do what another waits for"
        return "add what is waited for to the list of the rank that has its stage"


def _headline(cycle: list[int]) -> str:
    stuck = "the lists cannot be run to the end"
    if not cycle:
        return f"{stuck}: what a rank waits for is in no list"
    if len(cycle) == 1:
        return f"{stuck}: rank {cycle[0]} waits for itself"
    return f"{stuck}: ranks wait for each other, {' -> '.join(map(str, [*cycle, cycle[0]]))}"


def _which(need: Action, found: dict[Action, tuple[int, int, Action]]) -> str:
    if need not in found:
        return f"{need}, which no rank does"
    rank, number, action = found[need]
    return f"{action}, which rank {rank} does only at step {number}"
