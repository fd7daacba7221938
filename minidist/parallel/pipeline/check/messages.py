"""Messages: add the sends and receives to a schedule that lists only computing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from heapq import heappop, heappush

from ..actions import MESSAGES, RECEIVES, SENDS, Action, Schedule, Step
from ..needs import send_of
from .dry_run import Done, DryRun


def with_messages(schedule: Schedule) -> Schedule:
    """Add sends and receives to a schedule of computing alone; return any other one as it is.

    1. A dry run puts all computing steps in one order of time: F, I and W take one unit, B two.
    2. When a step ends whose result another rank needs, its send goes into the list of its own rank
       and the receive into the list of the neighbour. One by one in this order, every step finds
       what it needs and every send its receive. So the lists also end in parallel, even with sends
       that block until they are received.
    3. Then each receive moves one computing step earlier. Posting a receive early makes nobody
       wait, and the message travels while that step computes, straight into the receive's buffer (a
       message that no receive expects is buffered by MPI and copied). The price: a rank holds the
       receive's buffer for one step longer.
    4. Every send stays directly after the step that makes its array, so channels keep their order.

    Raises ScheduleError if the lists cannot be run to the end. All other rules are validate's.

    >>> lowered = with_messages(Schedule.of([["0F0"], ["1F0"]]))
    >>> [" ".join(map(str, order)) for order in lowered.orders]
    ['0F0 0SEND_F0', '1RECV_F0 1F0']
    """
    if schedule.has_messages:
        return schedule
    lists: list[list[Step]] = [[] for _ in schedule.orders]
    under_way: list[Done] = []  # a heap: the earliest end first
    dry_run = DryRun(schedule)
    for done in dry_run.run():
        while under_way and under_way[0].end <= done.start:
            _add_messages(schedule, heappop(under_way), lists)
        lists[done.rank].append(done.step)
        heappush(under_way, done)
    dry_run.check_finished()
    for done in sorted(under_way):
        _add_messages(schedule, done, lists)
    return replace(schedule, orders=tuple(_receive_early(steps) for steps in lists))


def without_messages(schedule: Schedule) -> Schedule:
    """The same schedule of computing alone."""
    kept = (tuple(step for step in order if step.kind not in MESSAGES) for order in schedule.orders)
    return replace(schedule, orders=tuple(kept))


def _add_messages(schedule: Schedule, done: Done, lists: list[list[Step]]) -> None:
    for part in done.step.parts:
        for send, receive in message(schedule, part):
            lists[done.rank].append(send)
            lists[schedule.rank_of[receive.stage]].append(receive)


def message(schedule: Schedule, action: Action) -> Iterator[tuple[Action, Action]]:
    """The send and the receive of an action's result; nothing if the result stays on its rank."""
    send = send_of(action)
    if send is not None:
        receive = send.received
        if schedule.crosses(receive.boundary):
            yield send, receive


def _receive_early(steps: Iterable[Step]) -> tuple[Step, ...]:
    """Move every receive to before the last computing step, and its sends, that precede it."""
    early: list[Step] = []
    last: list[Step] = []  # the last computing step, and its sends
    for step in steps:
        if step.kind in RECEIVES:
            early.append(step)
            continue
        if step.kind not in SENDS:
            early += last
            last = []
        last.append(step)
    return (*early, *last)
