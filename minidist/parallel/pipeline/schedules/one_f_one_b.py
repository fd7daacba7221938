"""1F1B: one forward, one backward, in turn, so that a rank keeps few activations.

1. Stage r is on rank r.
2. Warm-up: rank r does p - 1 - r forwards. Then the first micro-batch is on its way back.
3. Steady: one forward, then one backward, until no forward is left.
4. Drain: the p - 1 - r backwards that are left.
5. The bubble is GPipe's, (p - 1)(tf + tb). But rank r keeps the activations of at most p - r
   micro-batches, however many micro-batches there are.

PipeDream-Flush: Narayanan et al. 2021, arXiv 2104.04473, section 2.2.1 and figure 4.

Four ranks and eight micro-batches; a backward takes twice as long as a forward:

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(one_f_one_b(4, 8)).times))
rank 0 F0F1F2F3············B0──F4B1──F5B2──F6B3──F7B4──··B5──··B6──··B7──
rank 1 ··F0F1F2········B0──F3B1──F4B2──F5B3──F6B4──F7B5──··B6──··B7──····
rank 2 ····F0F1····B0──F2B1──F3B2──F4B3──F5B4──F6B5──F7B6──··B7──········
rank 3 ······F0B0──F1B1──F2B2──F3B3──F4B4──F5B5──F6B6──F7B7──············
"""

from __future__ import annotations

from collections.abc import Iterator

from ..actions import BACKWARD, FORWARD, Action, Schedule
from .order import named


@named("1f1b")
def one_f_one_b(ranks: int, microbatches: int) -> Schedule:
    """Warm-up, one forward and one backward in turn, drain.

    >>> [str(step) for step in one_f_one_b(1, 2).orders[0]]
    ['0F0', '0B0', '0F1', '0B1']
    """
    orders = (_order(rank, ranks, microbatches) for rank in range(ranks))
    return Schedule.of(orders, "1f1b")


def _order(rank: int, ranks: int, microbatches: int) -> Iterator[Action]:
    warmup = min(ranks - 1 - rank, microbatches)
    steady = microbatches - warmup
    for i in range(warmup):
        yield Action(rank, FORWARD, i)
    for i in range(steady):
        yield Action(rank, FORWARD, warmup + i)
        yield Action(rank, BACKWARD, i)
    for i in range(steady, microbatches):
        yield Action(rank, BACKWARD, i)
