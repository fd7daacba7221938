"""DualPipeV: a V in which forwards run at the same time as backwards, to hide communication."""

from __future__ import annotations

from collections.abc import Iterator

from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Schedule
from .order import Pair, Turn, numbered


def dualpipev(ranks: int, microbatches: int) -> Schedule:
    """Stages r and 2p - 1 - r on rank r; in the steady phase every forward overlaps a backward.

    DeepSeek's DualPipe keeps two copies of the model for that; cut in half it needs one, and each
    rank holds 2p + 1 chunks' activations. With PP = 2p stages the bubble is
    (PP/2 - 1)(F&B + B - 3W). Raises UserError below 2p micro-batches. (DeepSeek's DualPipe
    repository, and PyTorch's ScheduleDualPipeV.)
    """
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
    if not after:  # the last rank has both sides of the fold: here the backward needs the forward
        yield from steady.pop(0)
    yield from steady
    for _ in range(after):
        yield up, BACKWARD
        yield _overlap(up, down)
    yield from _drain(down, up, rank, after)


def _overlap(forward: int, backward: int) -> Pair:
    return (forward, FORWARD), (backward, BACKWARD)


def _drain(down: int, up: int, rank: int, after: int) -> Iterator[Turn]:
    """The last backwards: first whole, then I, whose W wait; then these, first in, first out."""
    left = [up, down] * (rank + 1)
    whole, split = left[: rank + 1], left[rank + 1 :]
    yield from ((stage, BACKWARD) for stage in whole)
    yield from ((stage, INPUT) for stage in split)
    weights = [(stage, WEIGHT) for stage in split + [down] * after]
    for weight in weights[:after]:
        yield weight
        yield down, INPUT
    yield from weights[after:]
