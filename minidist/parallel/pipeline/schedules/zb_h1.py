"""ZB-H1: weight gradients wait and fill the bubble, with no more memory than 1F1B.

1. The order is 1F1B's, but every backward is split into I and W.
2. I is done at once, because the rank before waits for its gradient.
3. Nobody waits for W. Rank r does each W later, when r more I are done. Its warm-up is r forwards
   shorter than rank 0's, so it has the memory for that.
4. The bubble is (p - 1)(tf + tI - tW): a third of 1F1B's if the three times are equal.
5. Every rank keeps the activations of p micro-batches, as rank 0 of 1F1B does.

Qi et al. 2023, arXiv 2401.10241, section 2.1. With v chunks, stage s on rank s % p, it is PyTorch's
ScheduleInterleavedZeroBubble: the warm-up has one forward for every rank after this one, and not two
as in interleaved.py.

Four ranks and eight micro-batches:

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(zb_h1(4, 8)).times))
"""

from __future__ import annotations

from math import inf

from ..actions import Schedule
from .order import alternate, in_rounds, named, numbered, round_size


@named("zb-h1", fewest_chunks=1, most_chunks=inf)
def zb_h1(ranks: int, microbatches: int, chunks: int = 1) -> Schedule:
    """1F1B with late W; with several chunks UserError if m is not a whole number of rounds.

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
