"""What schedules share: turns, as (stage, kind), the numbering of turns, 1F1B's order, rounds."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import count

from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Action, Overlap, Step

Turn = tuple[int, str]  # (stage, kind)
Pair = tuple[Turn, Turn]  # a forward and a backward that overlap


def numbered(turns: Iterable[Turn | Pair]) -> Iterator[Step]:
    """The turns of a rank with their micro-batches: a stage takes them in ascending order.

    Gradients are summed in the order of the backwards, so that every schedule adds the same numbers
    in the same order as accumulation without a pipeline: equal to the last bit. B counts as an I
    and a W.
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
    """Forwards to warm up, a forward and a backward in turn, the backwards left: a rank of 1F1B.

    `forwards` and `backwards` are its stages in the order of their turns, equally many. With a
    `delay` the backward is split: the k-th W follows the (k + delay)-th I.
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
    """The stages' turns: in every round each takes that many micro-batches, one stage by one.

    >>> in_rounds([0, 2], microbatches=4, a_round=2)
    [0, 0, 2, 2, 0, 0, 2, 2]
    """
    return [stage for stage in stages for _ in range(a_round)] * (microbatches // a_round)


def round_size(name: str, ranks: int, microbatches: int) -> int:
    """Micro-batches a round: p where p divides m. Raises UserError where none fits.

    Megatron-LM wants m % p == 0; PyTorch's rounds are m // p equal ones, of p or more; below p
    micro-batches they are one.
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
