"""Say why simulated ranks are stuck: each one's call, its line, and who waits for whom."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..sites import user_line
from .tasks import Half, Task

if TYPE_CHECKING:
    from .scheduler import Hub


def explain(hub: Hub) -> str:
    """The whole message of a DeadlockError."""
    stuck = sorted(hub.blocked, key=lambda task: (task.rank, task.call))
    ranks = {task.rank for task in stuck}
    lines = [f"deadlock: {len(ranks)} of {hub.size} ranks wait for ever"]
    lines += [_waiting(task, hub.blocked[task]) for task in stuck]
    waits_for: dict[int, list[int]] = {rank: [] for rank in ranks}
    for task in stuck:
        half = hub.blocked[task]
        if isinstance(half, Half):
            waits_for[task.rank].append(half.peer)
    for rank in sorted({peer for peers in waits_for.values() for peer in peers} - ranks):
        lines.append(f"  rank {rank} has returned")
    cycle = find_cycle(waits_for)
    if cycle:
        lines.append("  cycle: " + " -> ".join(map(str, [*cycle, cycle[0]])))
    return "\n".join(lines)


def find_cycle(waits_for: dict[int, list[int]]) -> list[int]:
    """A shortest way from the lowest possible rank back to itself, or nothing.

    >>> find_cycle({0: [1], 1: [2], 2: [1]})
    [1, 2]
    """
    for start in sorted(waits_for):
        paths, seen = [[start]], {start}
        for path in paths:
            for following in waits_for.get(path[-1], []):
                if following == start:
                    return path
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
    return []


def _waiting(task: Task, what: Half | Task) -> str:
    entry, place = user_line(task.greenlet.gr_frame)
    place = f"  at {place}" if place else ""
    if isinstance(what, Task):
        return f"  rank {task.rank} waits for its {what.call} to complete{place}"
    inside = task.call or ("" if entry in (what.verb, "i" + what.verb, "wait") else entry)
    return f"  rank {task.rank} waits in {inside and inside + ': '}{what.call}{place}"
