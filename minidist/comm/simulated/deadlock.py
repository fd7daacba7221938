"""The message of a DeadlockError: each rank's call, its line, and the cycle of ranks that wait."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple


class BlockedCall(NamedTuple):
    """A call that will never return."""

    rank: int
    collective: str  # the nonblocking collective that makes the call; "" for the rank's program
    call: str  # `recv(source=1, tag=0)`, or the nonblocking collective that the rank waits for
    peer: int | None  # the rank on the other side of a message; None for a nonblocking collective
    function: str  # the communication function in the user's program
    place: str  # its line there, "" if unknown


def explain(size: int, blocked: Sequence[BlockedCall]) -> str:
    """Describe calls that block each other for ever, among `size` ranks."""
    blocked = sorted(blocked, key=lambda b: (b.rank, b.collective))
    ranks = {b.rank for b in blocked}
    lines = [f"deadlock: {len(ranks)} of {size} ranks wait for ever", *map(_line, blocked)]
    waits_for: dict[int, list[int]] = {rank: [] for rank in ranks}
    for b in blocked:
        if b.peer is not None:
            waits_for[b.rank].append(b.peer)
    for rank in sorted({peer for peers in waits_for.values() for peer in peers} - ranks):
        lines.append(f"  rank {rank} has returned")
    cycle = find_cycle(waits_for)
    if cycle:
        lines.append("  cycle: " + " -> ".join(map(str, [*cycle, cycle[0]])))
    return "\n".join(lines)


def find_cycle(waits_for: dict[int, list[int]]) -> list[int]:
    """A shortest way from the lowest possible rank back to itself, or an empty list.

    >>> find_cycle({0: [1], 1: [2], 2: [1]})
    [1, 2]
    """
    for start in sorted(waits_for):
        paths, seen = [[start]], {start}
        for path in paths:  # breadth first: the list grows while it is walked
            for following in waits_for.get(path[-1], []):
                if following == start:
                    return path
                if following not in seen:
                    seen.add(following)
                    paths.append([*path, following])
    return []


def _line(b: BlockedCall) -> str:
    place = f"  at {b.place}" if b.place else ""
    if b.peer is None:
        return f"  rank {b.rank} waits for its {b.call} to complete{place}"
    verb = b.call.split("(")[0]
    # `comm.recv(…)` itself needs no name in front; inside `barrier`, the name says why it receives.
    plain = b.function in (verb, "i" + verb, "wait")
    inside = b.collective or ("" if plain else b.function)
    return f"  rank {b.rank} waits in {inside and inside + ': '}{b.call}{place}"
