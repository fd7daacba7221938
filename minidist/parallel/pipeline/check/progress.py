"""Run the lists of a schedule as far as they go, and say why they go no further."""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterator
from typing import NamedTuple

from ....errors import UserError
from ..actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    OVERLAP,
    RECEIVES,
    SEND_B,
    SEND_F,
    SENDS,
    WEIGHT,
    Action,
    Schedule,
    Step,
)

COST = {FORWARD: 1, INPUT: 1, WEIGHT: 1, BACKWARD: 2, OVERLAP: 3}  # messages take no time


class ScheduleError(UserError):
    """A schedule that cannot be run, or would not give what training without a pipeline gives."""


def place(rank: int, number: int, action: Step) -> str:
    """Where an action is; steps are counted from 0, as in orders[rank].

    >>> place(1, 3, Action(1, "F", 0))
    'rank 1, step 3 (1F0)'
    """
    return f"rank {rank}, step {number} ({action})"


def result(action: Action) -> Action:
    """What others know it by: B gives the gradient that I gives."""
    return Action(action.stage, INPUT, action.microbatch) if action.kind == BACKWARD else action


class Done(NamedTuple):
    """A step that a rank has done, and when; in the order of their ends."""

    end: int
    start: int
    rank: int
    step: Step


class Progress:
    """Ranks go through their lists; a step is done once all that its parts need is done before.

    That is the arrays an action reads, and its turn in the list. Where a schedule has messages, a
    send is synchronous: it is done only once the receive is posted, and the ranks buffer nothing. A
    schedule that ends so ends with any MPI library, however little it buffers.
    """

    def __init__(self, schedule: Schedule):
        self.orders, self.last = schedule.orders, schedule.stages - 1
        rank_of = schedule.rank_of
        apart = [rank_of.get(s) != rank_of.get(s + 1) for s in range(self.last)]
        sent = [schedule.has_messages and each for each in apart]
        self.forward = [SEND_F if s else FORWARD for s in sent]  # what hands over, by boundary
        self.backward = [SEND_B if s else INPUT for s in sent]
        self.at = [0] * schedule.ranks  # the next step
        self.now = [0] * schedule.ranks
        self.done: dict[Action, int] = {}  # and when
        self.ready: list[tuple[int, int]] = []  # (start, rank)
        self.waiting: dict[Action, list[int]] = defaultdict(list)

    def run(self) -> Iterator[Done]:
        """All steps that can be done, in the order of their starts, then of ranks.

        F, I and W take a unit of time, B two, messages none.
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
        """Put a rank in line for its next step, or with those that wait for what this needs."""
        if self.at[rank] == len(self.orders[rank]):
            return
        start = self.now[rank]
        for part in self.orders[rank][self.at[rank]].parts:
            for need in self.needs(part):
                done = self.done.get(need)
                if done is None:
                    self.waiting[need].append(rank)
                    return
                start = max(start, done)
        heapq.heappush(self.ready, (start, rank))

    def needs(self, action: Action) -> tuple[Action, ...]:
        """The results without which an action cannot be done."""
        stage, kind, i = action
        if kind == FORWARD:
            return (Action(stage - 1, self.forward[stage - 1], i),) if stage else ()
        if kind in (INPUT, BACKWARD):
            own = Action(stage, FORWARD, i)
            is_last = stage == self.last
            return (own,) if is_last else (own, Action(stage + 1, self.backward[stage], i))
        if kind == WEIGHT:
            return (Action(stage, INPUT, i),)
        if kind in SENDS:
            return Action(stage, FORWARD if kind == SEND_F else INPUT, i), action.received
        return ()

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
        cycle = _cycle(follows)
        others = [rank for rank in sorted(stuck) if rank not in cycle]
        lines = [_headline(cycle)]
        for rank in cycle + others:
            here = place(rank, self.at[rank], self.orders[rank][self.at[rank]])
            lines.append(f"  {here} waits for {_which(stuck[rank], found)}")
        return "\n".join([*lines, self._remedy([stuck[rank] for rank in cycle], found)])

    def _remedy(self, needs: list[Action], found: dict[Action, tuple[int, int, Action]]) -> str:
        receives = [found[need] for need in needs if need.kind in RECEIVES]
        if receives:
            rank, _, receive = receives[0]
            here = place(rank, self.at[rank], self.orders[rank][self.at[rank]])
            return f"post the receive earlier: {receive} before {here}"
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


def _cycle(follows: dict[int, int]) -> list[int]:
    """Ranks that wait in a circle, from the lowest on, where each waits for one; or none.

    >>> _cycle({0: 1, 1: 2, 2: 1})
    [1, 2]
    """
    seen: set[int] = set()
    for start in sorted(follows):
        path, rank = [], start
        while rank in follows and rank not in seen:
            seen.add(rank)
            path.append(rank)
            rank = follows[rank]
        if rank in path:
            circle = path[path.index(rank) :]
            lowest = circle.index(min(circle))
            return circle[lowest:] + circle[:lowest]
    return []
