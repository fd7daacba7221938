"""ZBV: two chunks in the shape of a V, no waiting within a rank, and the memory of 1F1B."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..actions import FORWARD, INPUT, WEIGHT, Schedule
from .order import Turn, numbered


def zbv(ranks: int, microbatches: int) -> Schedule:
    """Stages r and 2p - 1 - r on rank r: rank 0 has the first and the last.

    So a rank that holds one chunk's activations for long holds the other's for a short time: 2p
    chunks' on every rank, p micro-batches'. Where F, I and W take as long, no rank waits within its
    span from m = 2p - 1 on; any m runs.
    (Qi et al. 2023, arXiv 2401.10241, ZB-V; Qi et al. 2024, arXiv 2405.15362, V-ZB.)
    """
    every = (_limited(_turns(rank, ranks, microbatches), microbatches) for rank in range(ranks))
    return Schedule.of(map(numbered, every), "zbv")


def _turns(rank: int, ranks: int, microbatches: int) -> Iterator[Turn]:
    """A rank's turns if there were always a micro-batch left for each."""
    down, up, after = rank, 2 * ranks - 1 - rank, ranks - rank
    forward, backward = [(up, FORWARD), (down, FORWARD)], [(down, INPUT), (up, INPUT)]
    whole_down = [(down, FORWARD), (down, INPUT), (down, WEIGHT)]
    whole_up = [(up, FORWARD), (up, INPUT), (up, WEIGHT)]
    yield from [(down, FORWARD)] * (2 * after - 1)
    yield from forward * rank
    yield from whole_up * after
    yield from (whole_down + whole_up) * (microbatches - ranks)
    yield from backward * rank
    yield from [(down, INPUT), (down, WEIGHT)] * after
    yield from [(up, WEIGHT)] * rank + [(down, WEIGHT)] * rank


def _limited(turns: Iterable[Turn], microbatches: int) -> Iterator[Turn]:
    """Without those for which no micro-batch is left."""
    done: Counter[Turn] = Counter()
    for turn in turns:
        done[turn] += 1
        if done[turn] <= microbatches:
            yield turn
