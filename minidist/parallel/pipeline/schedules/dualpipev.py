"""DualPipeV: a V in which forwards run at the same time as backwards, to hide communication.

1. Stages r and 2p - 1 - r are on rank r, as in zbv.py.
2. Warm-up: forwards of the first chunk, then of both chunks in turn, then I, W and F of the second.
3. Steady: every forward of one chunk overlaps a full backward of the other. On a GPU the
   communication of one hides behind the computing of the other.
4. Drain: full backwards first, then I, whose W fill the gaps.
5. Every rank keeps the activations of 2p + 1 chunks. With PP = 2p stages the bubble is
   (PP/2 - 1)(F&B + B - 3W).

DeepSeek's DualPipe keeps two copies of the model; cut in half, as a V, it needs one. (DeepSeek's
DualPipe repository, and PyTorch's ScheduleDualPipeV.)

Two ranks and four micro-batches: stages 0 and 3 on rank 0, stages 1 and 2 on rank 1.

>>> from minidist.parallel.pipeline import simulate, timeline
>>> print(timeline(simulate(dualpipev(2, 4)).times))
rank 0 F0─F1─F2─F0─I0─W0─F1─F3+B1────···F2+B0────B2────···F3+B1────B3────I2─W2─I3─W3─
rank 1 ···F0─F0─F1─F1─F2─B0────F2+B0────F3+B1────F3+B1────B2────B2────···I3─I3─W3─W3─
"""

from __future__ import annotations

from collections.abc import Iterator

from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Schedule
from .order import Pair, Turn, named, numbered


@named("dualpipev", fewest_chunks=2, most_chunks=2)
def dualpipev(ranks: int, microbatches: int) -> Schedule:
    """The turns of a V with overlaps; UserError if there are fewer than 2p micro-batches."""
    if microbatches < 2 * ranks:
        fewer = f", or --pp {microbatches // 2} or less" if microbatches > 1 else ""
        raise UserError(
            f"--schedule dualpipev --pp {ranks} --microbatches {microbatches}: it needs two "
            f"micro-batches a rank; choose --microbatches {2 * ranks} or more{fewer}"
        )
    return Schedule.of(
        (numbered(_turns(rank, ranks, microbatches)) for rank in range(ranks)), "dualpipev"
    )


def _turns(rank: int, ranks: int, microbatches: int) -> Iterator[Turn | Pair]:
    down, up, after = rank, 2 * ranks - 1 - rank, ranks - 1 - rank
    yield from [(down, FORWARD)] * (2 * after)
    yield from [(down, FORWARD), (up, FORWARD)] * (rank + 1)
    yield from [(up, INPUT), (up, WEIGHT), (up, FORWARD)] * after
    steady = [_overlap(down, up), _overlap(up, down)] * (microbatches - 2 * ranks + rank + 1)
    if not after:  # the last rank has both sides of the fold: its first B needs the F beside it
        yield from steady.pop(0)
    yield from steady
    for _ in range(after):
        yield up, BACKWARD
        yield _overlap(up, down)
    yield from _drain(down, up, rank, after)


def _overlap(forward: int, backward: int) -> Pair:
    return (forward, FORWARD), (backward, BACKWARD)


def _drain(down: int, up: int, rank: int, after: int) -> Iterator[Turn]:
    """The last backwards: first full ones, then I, whose W wait and are done in the same order."""
    left = [up, down] * (rank + 1)
    whole, split = left[: rank + 1], left[rank + 1 :]
    yield from ((stage, BACKWARD) for stage in whole)
    yield from ((stage, INPUT) for stage in split)
    weights = [(stage, WEIGHT) for stage in split + [down] * after]
    for weight in weights[:after]:
        yield weight
        yield down, INPUT
    yield from weights[after:]
