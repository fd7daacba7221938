"""What every collective costs: messages and bytes exactly, and its time by α, β and γ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ..comm.collectives import chunks
from ..comm.collectives.binomial import children
from ..comm.collectives.recursive import largest_power_of_two
from ..comm.collectives.scatter import HEADER

NUMBER = 8  # bytes of a number of rows, where the ranks have to tell each other


class Traffic(NamedTuple):
    """What all ranks together send."""

    messages: int
    bytes: int

    def __add__(self, other: tuple) -> Traffic:
        return Traffic(self.messages + other[0], self.bytes + other[1])


def traffic(
    collective: str, algorithm: str, parts: Sequence[int], root: int = 0, itemsize: int = 1
) -> Traffic:
    """Messages and bytes of one call, for any number of ranks and any shards.

    parts[k] is the shard of rank k in bytes: what it gets of what is scattered or reduced, what it
    has of what is gathered. Where everyone sends everything only their sum S counts. Of counts that
    ranks must first ask each other for, and of all_to_all, see `asking` and `exchange`.

    >>> traffic("all_reduce", "ring", [100, 100, 100, 100])
    Traffic(messages=24, bytes=2400)
    """
    if collective == "scatter":  # the same messages the other way, and a header before each
        messages, sent = traffic("gather", algorithm, parts, root)
        return Traffic(messages + len(parts) - 1, sent + (len(parts) - 1) * HEADER * 8)
    n, s = len(parts), sum(parts)
    if collective in ("broadcast", "reduce"):
        return Traffic(*_to_or_from_one(n, s, itemsize)[algorithm])
    if collective == "all_reduce":
        return Traffic(*_all_reduce(n, s)[algorithm])
    if collective in ("all_gather", "reduce_scatter"):
        return Traffic(*_of_shards(parts)[algorithm])
    rounds = (n - 1).bit_length()
    scans = sum(n - 2**k for k in range(rounds))
    table = {
        "gather": {"linear": (n - 1, s - parts[root]), "tree": (n - 1, _hops(parts, root))},
        "scan": {"chain": (n - 1, (n - 1) * s), "doubling": (scans, scans * s)},
        "barrier": {"dissemination": (n * rounds, 0)},
    }
    return Traffic(*table[collective][algorithm])


def _doubling(n: int) -> int:
    """Messages of recursive doubling: each of the first p ranks log2(p), and the others' two."""
    p = largest_power_of_two(n)
    return p * (p.bit_length() - 1) + 2 * (n - p)


def _all_reduce(n: int, s: int) -> dict[str, tuple[int, int]]:
    messages, p = _doubling(n), largest_power_of_two(n)
    by_chunks, at_once = (2 * n * (n - 1), 2 * (n - 1) * s), (2 * (n - 1), 2 * (n - 1) * s)
    return {
        "naive": at_once, "tree": at_once, "ring": by_chunks, "ordered": by_chunks,
        "doubling": (messages, messages * s),
        "rabenseifner": (messages + p * (p.bit_length() - 1), 2 * (n - 1) * s),
    }  # fmt: skip


def _of_shards(parts: Sequence[int]) -> dict[str, tuple[int, int]]:
    n, s = len(parts), sum(parts)
    by_chunks = (n * (n - 1), (n - 1) * s)
    late = sum(
        parts[largest_power_of_two(n) :]
    )  # the shards of the ranks beyond the largest power of two
    halves = (_doubling(n), (n - 1) * s + late)
    return {
        "ring": by_chunks, "pairwise": by_chunks, "ordered": by_chunks,
        "bruck": (n * (n - 1).bit_length(), (n - 1) * s), "doubling": halves, "halving": halves,
    }  # fmt: skip


def asking(n: int) -> Traffic:
    """What it costs n ranks to learn counts that they are not told."""
    return Traffic(n * (n - 1), n * (n - 1) * NUMBER)


def exchange(algorithm: str, parts: Sequence[Sequence[int]]) -> Traffic:
    """all_to_all of parts[source][dest] bytes; bruck's are all alike. Without `asking`."""
    n = len(parts)
    if algorithm == "bruck":
        return Traffic(
            n * (n - 1).bit_length(), n * parts[0][0] * sum(d.bit_count() for d in range(n))
        )
    away = sum(b for k, row in enumerate(parts) for j, b in enumerate(row) if j != k)
    return Traffic(n * (n - 1), away)


def coefficients(collective: str, algorithm: str, n: int, segments: int = 1) -> tuple:
    """(a, b, g) of the time a·α + b·S·β + g·S·γ, γ a byte reduced; n is a power of two, divides S.

    S is the buffer of one rank, or the whole of what is scattered, gathered or exchanged. (Thakur,
    Rabenseifner & Gropp 2005, 4; a chain's two ends are counted in, and scatter's header is not.)

    >>> coefficients("all_reduce", "ring", 4)
    (6, 1.5, 0.75)
    """
    log, most = n.bit_length() - 1, (n - 1) / n
    hops = (n + segments - 2) / segments if n > 1 else 0.0
    piped = (segments * hops, hops)
    table: dict[str, dict[str, tuple]] = {
        "all_reduce": {
            "naive": (n - 1 + log, n - 1 + log, n - 1), "tree": (2 * log, 2 * log, log),
            "ring": (2 * (n - 1), 2 * most, most),
            "ordered": (2 * (n - 1), 2 * most, most), "doubling": (log, log, log),
            "rabenseifner": (2 * log, 2 * most, most),
        },
        "broadcast": {"linear": (n - 1, n - 1, 0), "tree": (log, log, 0), "chain": (*piped, 0)},
        "reduce": {"linear": (n - 1,) * 3, "tree": (log,) * 3, "chain": (*piped, hops)},
        "scatter": {"linear": (n - 1, most, 0), "tree": (log, most, 0)},
        "gather": {"linear": (n - 1, most, 0), "tree": (log, most, 0)},
        "all_gather": {
            "ring": (n - 1, most, 0), "bruck": (log, most, 0), "doubling": (log, most, 0),
        },
        "reduce_scatter": {
            "ring": (n - 1, most, most), "pairwise": (n - 1, most, most),
            "ordered": (n - 1, most, most), "halving": (log, most, most),
        },
        "all_to_all": {"pairwise": (n - 1, most, 0), "bruck": (log, log / 2, 0)},
        "scan": {"chain": (n - 1,) * 3, "doubling": (log,) * 3},
        "barrier": {"dissemination": (log, 0, 0)},
    }  # fmt: skip
    return table[collective][algorithm]


def _to_or_from_one(n: int, s: int, itemsize: int) -> dict[str, tuple[int, int]]:
    step = max(1, chunks.SEGMENT // itemsize) * itemsize
    segments = max(1, -(-s // step))
    whole = (n - 1, (n - 1) * s)
    return {"linear": whole, "tree": whole, "chain": ((n - 1) * segments, (n - 1) * s)}


def _hops(parts: Sequence[int], root: int) -> int:
    """Bytes of a binomial scatter or gather: a subtree's shards go over each edge above it."""
    n = len(parts)

    def below(place: int) -> int:
        mine = parts[(place + root) % n]
        return mine + sum(below(child) for child in children(place, n))

    return sum(below(place) for place in range(1, n))
