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
