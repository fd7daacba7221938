"""Lowering: say in the ranks' lists when what is sent and received."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

from ..actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    RECEIVES,
    SEND_B,
    SEND_F,
    SENDS,
    Action,
    Schedule,
    Step,
)
from .progress import Done, Progress

SENT_BY = {FORWARD: SEND_F, INPUT: SEND_B, BACKWARD: SEND_B}


def with_messages(schedule: Schedule) -> Schedule:
    """A schedule of computing alone with its sends and receives; another one as it is.

    All that happens is put in one order of time, where F, I and W take a unit and B two: a step
    when it starts, what leaves its rank when it ends, as a send in that rank's list and a receive
    in its neighbour's. Done one by one in that order, every step finds what it needs and every send
    its receive; so they do in parallel, even with sends that block until they are received.

    Then each receive moves to before the computing step that precedes it. To post one earlier makes
    nobody wait. Its message travels while that step computes, straight to where it is read (what
    MPI does not expect it keeps in buffers of its own, and copies); in return the rank holds what
    it receives for one step longer. A send follows the step that makes its array, and channels keep
    their order.

    Raises ScheduleError where the lists cannot be run to the end; whether the schedule is right
    otherwise is validate's question.

    >>> lowered = with_messages(Schedule.of([["0F0"], ["1F0"]]))
    >>> [" ".join(map(str, order)) for order in lowered.orders]
    ['0F0 0SEND_F0', '1RECV_F0 1F0']
    """
    if schedule.has_messages:
        return schedule
    lists: list[list[Step]] = [[] for _ in schedule.orders]
    under_way: list[Done] = []  # by their ends
    progress = Progress(schedule)
    for done in progress.run():
        while under_way and under_way[0].end <= done.start:
            _hand_over(schedule, heappop(under_way), lists)
        lists[done.rank].append(done.step)
        heappush(under_way, done)
    progress.check_finished()
    for done in sorted(under_way):
        _hand_over(schedule, done, lists)
    return Schedule(tuple(_receive_early(steps) for steps in lists), schedule.name)


def _hand_over(schedule: Schedule, done: Done, lists: list[list[Step]]) -> None:
    for part in done.step.parts:
        for send, receive in message(schedule, part):
            lists[done.rank].append(send)
            lists[schedule.rank_of[receive.stage]].append(receive)


def message(schedule: Schedule, action: Action) -> Iterator[tuple[Action, Action]]:
    """The send and the receive of what an action makes; nothing where it stays on its rank."""
    stage, kind, i = action
    if kind in SENT_BY:
        send, here = Action(stage, SENT_BY[kind], i), schedule.rank_of[stage]
        if schedule.rank_of.get(send.received.stage, here) != here:
            yield send, send.received


def _receive_early(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Every receive before the computing step, and its sends, that come before it."""
    early: list[Step] = []
    held: list[Step] = []  # the last computing step, and its sends
    for step in steps:
        if step.kind in RECEIVES:
            early.append(step)
            continue
        if step.kind not in SENDS:
            early += held
            held = []
        held.append(step)
    return (*early, *held)
