"""Say why simulated ranks are stuck: each one's call, its line, and who waits for whom."""

from __future__ import annotations

import os
from types import FrameType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .hub import Hub

HERE = os.path.dirname(__file__) + os.sep


def explain(hub: Hub) -> str:
    """The whole message of a DeadlockError."""
    lines = [f"deadlock: {len(hub.blocked)} of {hub.size} ranks wait for ever"]
    lines += [_waiting(hub, rank) for rank in sorted(hub.blocked)]
    waits_for = {rank: half.peer for rank, half in hub.blocked.items()}
    for rank in sorted(set(waits_for.values()) - set(waits_for)):
        lines.append(f"  rank {rank} has returned")
    cycle = find_cycle(waits_for)
    if cycle:
        lines.append("  cycle: " + " -> ".join(map(str, [*cycle, cycle[0]])))
    return "\n".join(lines)


def find_cycle(waits_for: dict[int, int]) -> list[int]:
    """The ranks of the cycle with the lowest rank, or nothing.

    >>> find_cycle({0: 1, 1: 2, 2: 1})
    [1, 2]
    """
    for start in sorted(waits_for):
        path = [start]
        while (following := waits_for.get(path[-1])) is not None and following not in path:
            path.append(following)
        if following == start:
            return path
    return []


def _waiting(hub: Hub, rank: int) -> str:
    half = hub.blocked[rank]
    entry, place = _user_line(hub.greenlets[rank].gr_frame)
    inside = "" if entry in (half.verb, "i" + half.verb, "wait") else f"{entry}: "
    return f"  rank {rank} waits in {inside}{half.call}{place}"


def _user_line(frame: FrameType | None) -> tuple[str, str]:
    """The communication function that was called, and where the caller stands."""
    entry = ""
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        entry, frame = frame.f_code.co_name, frame.f_back
    if frame is None:
        return entry, ""
    code = frame.f_code
    return entry, f"  at {code.co_filename}:{frame.f_lineno} in {code.co_name}"
