"""Interleaved 1F1B: v chunks of the model on every rank, for a bubble v times as short."""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, in_rounds, numbered, round_size


def interleaved(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """Stage s on rank s % p; a round of micro-batches goes through one chunk, then the next.

    Rank r warms up with one round through all chunks but the last, and 2(p - 1 - r) forwards more:
    the turns that a forward takes down to the last rank, and its backward up again. The bubble is
    (p - 1)(tf + tb) / v; rank 0 holds vp + p - 1 chunks' activations. Raises UserError where m is
    not a whole number of rounds. (Narayanan et al. 2021, arXiv 2104.04473, section 2.2.2; rounds:
    `round_size`.)

    >>> [str(step) for step in interleaved(1, 1).orders[0]]
    ['0F0', '1F0', '1B0', '0B0']
    """
    size = round_size("interleaved", ranks, microbatches)
    orders = []
    for rank in range(ranks):
        stages = range(rank, ranks * chunks, ranks)
        forwards = in_rounds(stages, microbatches, size)
        backwards = in_rounds(reversed(stages), microbatches, size)
        warmup = (chunks - 1) * size + 2 * (ranks - 1 - rank)
        orders.append(numbered(alternate(forwards, backwards, warmup)))
    return Schedule.of(orders, "interleaved")
