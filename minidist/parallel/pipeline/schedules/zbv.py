"""ZBV: two chunks in the shape of a V, no waiting within a rank, and the memory of 1F1B.

1. Stages r and 2p - 1 - r are on rank r: a micro-batch goes down the ranks and up again, and rank 0
   has the first stage and the last.
2. A rank that keeps the activations of one chunk for long keeps the other's for a short time. So
   every rank keeps 2p chunks, which is p micro-batches, as rank 0 of 1F1B does.
3. Warm-up: forwards of the first chunk, then forwards of both chunks in turn, then F, I and W of
   the second chunk.
4. Steady: F, I and W of the first chunk, then of the second. Drain: I first, W where there is time.
5. If F, I and W take equally long, no rank waits within its span from m = 2p - 1 on; any m runs.

Qi et al. 2023, arXiv 2401.10241, ZB-V; Qi et al. 2024, arXiv 2405.15362, V-ZB.

Two ranks and four micro-batches: stages 0 and 3 on rank 0, stages 1 and 2 on rank 1.

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(zbv(2, 4)).times))
rank 0 F0─F1─F2─F0─I0─W0─F1─I1─W1─F3─I0─W0─F2─I2─W2─I1─W1─F3─I3─W3─I2─W2─I3─W3─···
rank 1 ···F0─F0─F1─F1─I0─W0─F2─I0─W0─F2─I1─W1─F3─I1─W1─F3─I2─W2─I2─I3─I3─W2─W3─W3─
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator

from ..actions import FORWARD, INPUT, WEIGHT, Schedule
from .order import Turn, named, numbered


@named("zbv", fewest_chunks=2, most_chunks=2)
def zbv(ranks: int, microbatches: int) -> Schedule:
    """The turns of a V, without those for which no micro-batch is left."""
    every = (_limited(_turns(rank, ranks, microbatches), microbatches) for rank in range(ranks))
    return Schedule.of(map(numbered, every), "zbv")


def _turns(rank: int, ranks: int, microbatches: int) -> Iterator[Turn]:
    """A rank's turns, as if a micro-batch were always left for each."""
    down, up, after = rank, 2 * ranks - 1 - rank, ranks - rank
    forward, backward = [(up, FORWARD), (down, FORWARD)], [(down, INPUT), (up, INPUT)]
    whole_down = [(down, FORWARD), (down, INPUT), (down, WEIGHT)]
    whole_up = [(up, FORWARD), (up, INPUT), (up, WEIGHT)]
    # Warm-up
    yield from [(down, FORWARD)] * (2 * after - 1)
    yield from forward * rank
    yield from whole_up * after
    # Steady
    yield from (whole_down + whole_up) * (microbatches - ranks)
    # Drain
    yield from backward * rank
    yield from [(down, INPUT), (down, WEIGHT)] * after
    yield from [(up, WEIGHT)] * rank + [(down, WEIGHT)] * rank


def _limited(turns: Iterable[Turn], microbatches: int) -> Iterator[Turn]:
    """Leave out the turns for which no micro-batch is left."""
    done: Counter[Turn] = Counter()
    for turn in turns:
        done[turn] += 1
        if done[turn] <= microbatches:
            yield turn
