"""A timeline in a terminal: one line for each rank, each step as wide as its time."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence

from ....comm import Communicator, all_gather_bytes
from ..actions import Step, parse

Times = Sequence[tuple[Step, float, float]]  # a rank's steps: (step, start, end)


def timeline(times: Sequence[Times], width: int = 100) -> str:
    """The steps of all ranks, simulated or executed; no line is longer than `width`.

    A step begins with its letter and micro-batch, cut to its width. The stage stands before them if
    ranks have several stages and all steps have room for it. A · is idle time. The shortest step
    has a whole number of columns, if the width allows it, so that equal times are equally wide.

    >>> from minidist.parallel.pipeline import Action
    >>> print(timeline([[(Action(0, "F", 0), 0, 1), (Action(0, "B", 0), 4, 6)]], width=24))
    rank 0 F0······B0──
    """
    scale = _scale(times, width - len(_head(times, 0)))
    end = _column(_end(times) * scale)
    name = _with_stage if _has_room(times, scale) else _label
    lanes = (_lane(steps, scale, name).ljust(end, "·") for steps in times)
    return "\n".join(_head(times, rank) + lane for rank, lane in enumerate(lanes))


def gathered(comm: Communicator, times: Times) -> list[Times]:
    """Gather the executed steps of all ranks on every rank; times count from the first start.

    All ranks call it. They must share one clock, as ranks on one machine do.
    """
    own = json.dumps([(str(step), start, end) for step, start, end in times])
    lanes = [json.loads(text) for text in all_gather_bytes(comm, own.encode())]
    zero = min((lane[0][1] for lane in lanes if lane), default=0)
    return [
        [(parse(text), start - zero, end - zero) for text, start, end in lane] for lane in lanes
    ]


def timeline_width(times: Sequence[Times]) -> int:
    """The least width at which every step shows its letter and micro-batch."""
    shortest = _shortest(times)
    steps = [(end - start, len(_label(step))) for lane in times for step, start, end in lane]
    columns = [-(-size * shortest // length) for length, size in steps if length > 0]
    scale = max(columns, default=0) / (shortest or 1)
    return len(_head(times, 0)) + _column(_end(times) * scale)


def _scale(times: Sequence[Times], room: int) -> float:
    """Columns for one unit of time."""
    end, shortest = _end(times), _shortest(times)
    if not end or room <= 0:
        return 0
    columns = int(room * shortest / end + 1e-9)
    return columns / shortest if columns else room / end


def _end(times: Sequence[Times]) -> float:
    return max((end for lane in times for _, _, end in lane), default=0)


def _shortest(times: Sequence[Times]) -> float:
    lengths = (end - start for lane in times for _, start, end in lane)
    return min((length for length in lengths if length > 0), default=0)


def _column(position: float) -> int:
    # not round(): from 1.5 to 2.5 it has no column, from 0.5 to 1.5 two
    return int(position + 0.5 + 1e-9)


def _head(times: Sequence[Times], rank: int) -> str:
    return f"rank {rank:<{len(str(len(times) - 1))}} "


def _lane(steps: Times, scale: float, name: Callable[[Step], str]) -> str:
    line = ""
    for step, start, end in steps:
        line = line.ljust(_column(start * scale), "·")
        width = max(0, _column(end * scale) - len(line))
        line += name(step)[:width].ljust(width, "─")
    return line


def _has_room(times: Sequence[Times], scale: float) -> bool:
    """Whether some rank has several stages, and all steps have room for their stage."""
    stages = [{part.stage for step, *_ in lane for part in step.parts} for lane in times]
    return any(len(of_rank) > 1 for of_rank in stages) and all(
        (end - start) * scale > len(_with_stage(step))
        for lane in times for step, start, end in lane if end > start
    )  # fmt: skip


def _label(step: Step) -> str:
    return "+".join(f"{part.kind}{part.microbatch}" for part in step.parts)


def _with_stage(step: Step) -> str:
    return "+".join(map(str, step.parts))
