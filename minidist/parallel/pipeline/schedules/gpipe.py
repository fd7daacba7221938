"""GPipe: all forwards, then all backwards.

1. Stage r is on rank r.
2. Every rank does the forwards of all m micro-batches, then all m backwards.
3. The pipeline fills during p - 1 forwards and drains during p - 1 backwards. So every rank is idle
   for (p - 1)(tf + tb), the bubble.
4. Every rank keeps the activations of all m micro-batches at once. 1F1B keeps fewer, and takes no
   longer.
5. The backwards are in ascending order, where the paper draws them descending. The time is the
   same, and gradients are summed in the order of accumulation: equal to it to the last bit.

Huang et al. 2019, arXiv 1811.06965, section 2.3 and figure 2c.

Four ranks and eight micro-batches; a backward takes twice as long as a forward:

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(gpipe(4, 8)).times))
rank 0 F0F1F2F3F4F5F6F7··················B0──B1──B2──B3──B4──B5──B6──B7──
rank 1 ··F0F1F2F3F4F5F6F7············B0──B1──B2──B3──B4──B5──B6──B7──····
rank 2 ····F0F1F2F3F4F5F6F7······B0──B1──B2──B3──B4──B5──B6──B7──········
rank 3 ······F0F1F2F3F4F5F6F7B0──B1──B2──B3──B4──B5──B6──B7──············
"""

from __future__ import annotations

from collections.abc import Iterator

from ..actions import BACKWARD, FORWARD, Action, Schedule
from .order import named


@named("gpipe")
def gpipe(ranks: int, microbatches: int) -> Schedule:
    """All forwards, then all backwards.

    >>> [str(step) for step in gpipe(1, 2).orders[0]]
    ['0F0', '0F1', '0B0', '0B1']
    """
    return Schedule.of((_order(rank, microbatches) for rank in range(ranks)), "gpipe")


def _order(rank: int, microbatches: int) -> Iterator[Action]:
    for i in range(microbatches):
        yield Action(rank, FORWARD, i)
    for i in range(microbatches):
        yield Action(rank, BACKWARD, i)
