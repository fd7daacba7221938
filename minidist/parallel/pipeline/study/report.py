"""The text that `minidist schedule` prints: a simulated schedule as a table, totals, a timeline."""

from __future__ import annotations

from collections.abc import Iterator
from io import StringIO

from ....errors import visible
from ..actions import SEND_B, SEND_F, Schedule
from .simulate import Simulated
from .timeline import timeline, timeline_width

COLUMNS = ("rank", "stages", "work", "idle", "span", "peak chunks", "micro-batches", "messages")


def report(simulated: Simulated, width: int) -> str:
    """A table of the ranks, the times and bubbles of all, and the timeline if it fits `width`."""
    title = [_title(simulated.schedule), *simulated.schedule.notes]
    return "\n".join([*title, "", _table(simulated), *_totals(simulated), "",
                      _timeline(simulated, width)])  # fmt: skip


def _title(schedule: Schedule) -> str:
    return (
        f"{visible(schedule.name or 'schedule')}: --pp {schedule.ranks} "
        f"--microbatches {schedule.microbatches}, {schedule.stages} stages"
    )


def _table(simulated: Simulated) -> str:
    """One row for each rank."""
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in COLUMNS:
        table.add_column(name, justify="left" if name == "stages" else "right", no_wrap=True)
    for row in _rows(simulated):
        table.add_row(*row)
    text = StringIO()
    Console(file=text, width=200, color_system=None).print(table)
    return "\n".join(line.rstrip() for line in text.getvalue().splitlines())


def _rows(simulated: Simulated) -> Iterator[list[str]]:
    live, whole = simulated.peak_live(), simulated.peak_microbatches()
    for rank, sent in enumerate(simulated.sent):
        stages = ", ".join(map(str, simulated.schedule.stages_of(rank)))
        times = simulated.work[rank], simulated.idle[rank], simulated.span[rank]
        numbers = *times, live[rank], whole[rank], sent.total()
        yield [str(rank), stages, *map(_number, numbers)]


def _totals(simulated: Simulated) -> Iterator[str]:
    yield ""
    yield f"makespan  {_number(simulated.makespan)}"
    yield f"ideal     {_number(simulated.ideal)} (the busiest rank's work)"
    yield f"bubble    {simulated.idle_fraction:.2%} of all time is idle"
    yield f"          {simulated.bubble_ratio:.2%} of the ideal time"
    inside = _number(max(simulated.span_bubble, default=0))
    yield f"          {inside} at most between a rank's first step and its last"
    kinds = {kind: sum(sent[kind] for sent in simulated.sent) for kind in (SEND_F, SEND_B)}
    each = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
    size = f", {simulated.bytes:,.0f} bytes" if simulated.bytes else ""  # 0: no size was given
    yield f"messages  {simulated.messages} ({each}){size}"


def _number(value: float) -> str:
    """Nine decimals, which hides the rounding errors of differences of times."""
    return f"{round(value, 9):.6g}"


def _timeline(simulated: Simulated, width: int) -> str:
    needed = timeline_width(simulated.times)
    if needed <= width:
        return timeline(simulated.times, width)
    return f"The timeline takes {needed} columns, here are {width}: --draw FILE.svg draws it."
