"""Interleaved 1F1B: v chunks of the model on every rank, and a bubble v times as short.

1. Stage s is on rank s % p, so a micro-batch goes round all ranks v times.
2. The micro-batches come in rounds of p: a round goes through a rank's first chunk, then through
   its second, and so on; backwards go through the chunks in reverse.
3. Warm-up: rank r does one round through all chunks but the last, and 2(p - 1 - r) forwards more:
   the turns that a forward takes down to the last rank, and its backward up again.
4. Then one forward and one backward in turn, and at the end the backwards that are left: 1F1B.
5. The bubble is (p - 1)(tf + tb) / v; rank 0 keeps the activations of vp + p - 1 chunks.

Narayanan et al. 2021, arXiv 2104.04473, section 2.2.2; for the rounds see `round_size`.

Two ranks, four micro-batches and two chunks: stages 0 and 2 on rank 0, stages 1 and 3 on rank 1.

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(interleaved(2, 4)).times))
rank 0 F0─F1─F0─F1─F2─···B0────F3─B1────F2─B0────F3─B1────···B2────···B3────B2────B3────
rank 1 ···F0─F1─F0─B0────F1─B1────F2─B0────F3─B1────F2─B2────F3─B3────B2────B3────······
"""

from __future__ import annotations

from math import inf

from ..actions import Schedule
from .order import alternate, in_rounds, named, numbered, round_size


@named("interleaved", fewest_chunks=2, most_chunks=inf)
def interleaved(ranks: int, microbatches: int, chunks: int = 2) -> Schedule:
    """1F1B over rounds of micro-batches; UserError if m is not a whole number of rounds.

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
