"""ZB-H1: weight gradients wait and fill the bubble, with no more memory than 1F1B."""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, in_rounds, numbered, round_size


def zb_h1(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """1F1B with I at once, which the rank before waits for, and W later: r micro-batches on rank r.

    The bubble is (p - 1)(tf + tI - tW), a third of 1F1B's where they are equal; every rank holds
    p micro-batches' activations, as rank 0 of 1F1B does. (Qi et al. 2023, arXiv 2401.10241,
    section 2.1.) With v chunks, stage s on rank s % p, it is PyTorch's
    ScheduleInterleavedZeroBubble: to warm up, one forward for every rank after it, not two as when
    interleaved. Raises UserError where m is not a whole number of rounds.

    >>> [str(step) for step in zb_h1(1, 1).orders[0]]
    ['0F0', '0I0', '0W0']
    """
    size = round_size("zb-h1", ranks, microbatches) if chunks > 1 else microbatches
    orders = []
    for rank in range(ranks):
        stages = range(rank, ranks * chunks, ranks)
        forwards = in_rounds(stages, microbatches, size)
        backwards = in_rounds(reversed(stages), microbatches, size)
        warmup = (chunks - 1) * size + ranks - 1 - rank
        orders.append(numbered(alternate(forwards, backwards, warmup, delay=rank)))
    return Schedule.of(orders, "zb-h1")
