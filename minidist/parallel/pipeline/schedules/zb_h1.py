"""ZB-H1: weight gradients wait and fill the bubble, with no more memory than 1F1B.

1. The order is 1F1B's, but every backward is split into I and W.
2. I is done at once, because the rank before waits for its gradient.
3. Nobody waits for W. Rank r does each W later, when r more I are done. Its warm-up is r forwards
   shorter than rank 0's, so it has the memory for that.
4. The bubble is (p - 1)(tf + tI - tW): a third of 1F1B's if the three times are equal.
5. Every rank keeps the activations of p micro-batches, as rank 0 of 1F1B does.

Qi et al. 2023, arXiv 2401.10241, section 2.1. With v chunks, stage s on rank s % p, it is PyTorch's
ScheduleInterleavedZeroBubble: its warm-up has one forward for every rank after this one, where
interleaved.py has two.

Four ranks and eight micro-batches:

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(zb_h1(4, 8)).times))
rank 0 F0─F1─F2─F3─·········I0─W0─F4─I1─W1─F5─I2─W2─F6─I3─W3─F7─I4─W4─I5─W5─I6─W6─I7─W7─
rank 1 ···F0─F1─F2─······I0─F3─I1─W0─F4─I2─W1─F5─I3─W2─F6─I4─W3─F7─I5─W4─I6─W5─I7─W6─W7─
rank 2 ······F0─F1─···I0─F2─I1─F3─I2─W0─F4─I3─W1─F5─I4─W2─F6─I5─W3─F7─I6─W4─I7─W5─W6─W7─
rank 3 ·········F0─I0─F1─I1─F2─I2─F3─I3─W0─F4─I4─W1─F5─I5─W2─F6─I6─W3─F7─I7─W4─W5─W6─W7─
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
