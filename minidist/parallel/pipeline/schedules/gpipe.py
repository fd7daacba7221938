"""GPipe: all forwards, then all backwards."""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, numbered


def gpipe(ranks: int, microbatches: int) -> Schedule:
    """Stage r on rank r; every rank holds all m micro-batches' activations at once.

    The bubble is (p - 1)(tf + tb). Backwards run in ascending order as well, where the paper draws
    them descending: as long, and bitwise equal to accumulation. (Huang et al. 2019,
    arXiv 1811.06965, section 2.3 and figure 2c.)

    >>> [str(step) for step in gpipe(1, 2).orders[0]]
    ['0F0', '0F1', '0B0', '0B1']
    """
    turns = ([rank] * microbatches for rank in range(ranks))
    return Schedule.of((numbered(alternate(t, t, warmup=microbatches)) for t in turns), "gpipe")
