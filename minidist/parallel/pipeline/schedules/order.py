"""Tools for writing a schedule: its name, turns (stage, kind), 1F1B's order of turns, rounds.

A turn says which stage computes which kind; `numbered` then gives the turns their micro-batches.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import count
from typing import Any, Protocol, cast

from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action, Overlap, Schedule, Step

Turn = tuple[int, str]  # (stage, kind)
Pair = tuple[Turn, Turn]  # a forward and a backward that overlap


class Maker(Protocol):
    """A function that makes a schedule, with its name and the chunks a rank that it may have.

    It takes `chunks` as a third argument if it has a choice.
    """

    name: str
    fewest_chunks: int
    most_chunks: float

    def __call__(self, ranks: int, microbatches: int, *chunks: int) -> Schedule: ...


def named(
    name: str, fewest_chunks: int = 1, most_chunks: float = 1
) -> Callable[[Callable[..., Schedule]], Maker]:
    """Give a schedule's function its name for --schedule, and the --chunks that it may have."""

    def give(make: Callable[..., Schedule]) -> Maker:
        maker = cast(Any, make)
        maker.name, maker.fewest_chunks, maker.most_chunks = name, fewest_chunks, most_chunks
        return maker

    return give


def numbered(turns: Iterable[Turn | Pair]) -> Iterator[Step]:
    """Give a rank's turns their micro-batches: each stage takes them in ascending order.

    Gradients are summed in the order of the backwards. So every schedule adds the same numbers in
    the same order as accumulation without a pipeline, and the sums are equal to the last bit. A B
    counts as an I and a W.
    """
    done: Counter[Turn] = Counter()
    for turn in turns:
        match turn:
            case (int(stage), str(kind)):
                yield _number(done, stage, kind)
            case ((f_stage, forward), (b_stage, backward)):
                pair = _number(done, f_stage, forward), _number(done, b_stage, backward)
                yield Overlap(*pair)


def _number(done: Counter[Turn], stage: int, kind: str) -> Action:
    counted = (INPUT, WEIGHT) if kind == BACKWARD else (kind,)
    microbatch = done[stage, counted[0]]
    done.update((stage, each) for each in counted)
    return Action(stage, kind, microbatch)


def alternate(
    forwards: Sequence[int], backwards: Sequence[int], warmup: int, delay: int | None = None
) -> Iterator[Turn]:
    """A rank's turns in 1F1B's order: warm-up, one forward and one backward in turn, drain.

    `forwards` and `backwards` are the rank's stages in the order of their turns, equally many. With
    a `delay`, backwards are split into I and W: the k-th W follows the (k + delay)-th I.
    """
    yield from ((stage, FORWARD) for stage in forwards[:warmup])
    steady = forwards[warmup:]
    for k, stage in enumerate(backwards):
        if k < len(steady):
            yield steady[k], FORWARD
        yield stage, BACKWARD if delay is None else INPUT
        if delay is not None and k >= delay:
            yield backwards[k - delay], WEIGHT
    if delay:
        yield from ((stage, WEIGHT) for stage in backwards[-delay:])


def in_rounds(stages: Iterable[int], microbatches: int, a_round: int) -> list[int]:
    """The stages' turns: in every round, each stage in turn takes `a_round` micro-batches.

    >>> in_rounds([0, 2], microbatches=4, a_round=2)
    [0, 0, 2, 2, 0, 0, 2, 2]
    """
    return [stage for stage in stages for _ in range(a_round)] * (microbatches // a_round)


def round_size(name: str, ranks: int, microbatches: int) -> int:
    """The number of micro-batches in a round: p if p divides m. Raises UserError if none fits.

    Megatron-LM wants m % p == 0. PyTorch makes m // p equal rounds of p or more micro-batches, and
    one round of fewer than p.
    """
    if not _divides(ranks, microbatches):
        fewer = next(n for n in range(microbatches - 1, 0, -1) if _divides(ranks, n))
        more = next(n for n in count(microbatches + 1) if _divides(ranks, n))
        raise UserError(
            f"--schedule {name} --pp {ranks} --microbatches {microbatches}: {microbatches} "
            f"micro-batches are not {microbatches // ranks} equal rounds of {ranks} or more; "
            f"choose --microbatches {fewer} or {more}"
        )
    return microbatches // _rounds(ranks, microbatches)


def _rounds(ranks: int, microbatches: int) -> int:
    return max(1, microbatches // ranks)


def _divides(ranks: int, microbatches: int) -> bool:
    return microbatches % _rounds(ranks, microbatches) == 0
