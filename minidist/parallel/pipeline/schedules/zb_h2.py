"""ZB-H2: twice the warm-up, so that no rank waits between its first action and its last."""

from __future__ import annotations

from ..actions import Schedule
from .order import alternate, numbered


def zb_h2(ranks: int, microbatches: int) -> Schedule:
    """Stage r on rank r: 2(p - r) - 1 forwards before the first I, and W later by 2r micro-batches.

    A rank's span has a bubble of (p - 1)(tf + tI - 2tW), none where they are equal; the ranks still
    start one after another, (p - 1)tf. Every rank holds 2p - 1 micro-batches' activations, and
    it takes as many to fill the pipeline: best for m >= 2p - 1, though any m runs.
    (Qi et al. 2023, arXiv 2401.10241, section 2.2.)
    """
    orders = []
    for rank in range(ranks):
        turns = [rank] * microbatches
        orders.append(numbered(alternate(turns, turns, 2 * (ranks - 1 - rank), delay=2 * rank)))
    return Schedule.of(orders, "zb-h2")
