"""1F1B: as soon as a backward can run it does, so that a rank holds few activations."""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, numbered


def one_f_one_b(ranks: int, microbatches: int) -> Schedule:
    """Stage r on rank r, which warms up with p - 1 - r forwards, then does one of each in turn.

    As long as GPipe, but rank r holds p - r micro-batches' activations at most, however many there
    are. (PipeDream-Flush: Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1 and figure 4.)

    >>> [str(step) for step in one_f_one_b(1, 2).orders[0]]
    ['0F0', '0B0', '0F1', '0B1']
    """
    turns = ([rank] * microbatches for rank in range(ranks))
    orders = (alternate(t, t, warmup=ranks - 1 - rank) for rank, t in enumerate(turns))
    return Schedule.of(map(numbered, orders), "1f1b")
