"""Cutting a model into stages by cost, so that the slowest rank is as fast as can be."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from ...errors import UserError
from ...kernels import arrays as xp
from ...nn import Sequential


def balance(
    costs: Sequence[float], stages: int, rank_of: Mapping[int, int] | None = None
) -> list[int]:
    """How many layers each stage gets: contiguous, none without one, the dearest stage cheapest.

    Of all cuts with that maximum, the one whose stages differ least (by the sum of squares), and
    of those one with the later stages larger: the earlier ones hold more micro-batches. What
    counts is the maximum over the stages, by which a pipeline runs; an even split under-estimates
    it (for layers that cost 1, 1, 1, 5, two a stage: 6 where 5 can be had).

    Where ranks have several stages (`rank_of` says which), a pipeline runs by its dearest rank:
    from that cut, layers then move from stages of the dearest rank to others as long as this
    makes it cheaper, or ranks and then stages more alike.

    >>> balance([1, 1, 1, 5], 2)
    [3, 1]
    >>> balance([1] * 6, 4, rank_of={0: 0, 1: 1, 2: 1, 3: 0})  # a V: three layers a rank
    [1, 1, 2, 2]
    """
    _check(len(costs), stages)
    if not all(cost >= 0 for cost in costs):
        raise UserError(f"costs {list(costs)}: want numbers of at least 0")
    sums = xp.array([0.0, *accumulate(costs)])
    worst = _cheapest(sums, stages, lambda best, cost: xp.maximum(best, cost))[0]
    bound = worst * (1 + 1e-12)
    square = lambda best, cost: best + xp.where(cost > bound, xp.inf, cost * cost)
    split = _cheapest(sums, stages, square)[1]
    return _even_out(split, sums, rank_of) if rank_of and sums[-1] else split


def _even_out(split: list[int], sums: xp.ndarray, rank_of: Mapping[int, int]) -> list[int]:
    """The split after the moves of one layer that each help most."""
    owners, sums = xp.array([rank_of[stage] for stage in range(len(split))]), sums / sums[-1]

    def loads(split: Sequence[int]) -> tuple[xp.ndarray, xp.ndarray]:
        stages = xp.diff(sums[[0, *accumulate(split)]])
        return xp.bincount(owners, weights=stages), stages

    def price(split: Sequence[int]) -> tuple:
        both = [round(float(n), 9) for each in loads(split) for n in (each.max(), each @ each)]
        return *both, tuple(split)

    while True:
        dearest = loads(split)[0].argmax()
        best = min(_moves(split, xp.flatnonzero(owners == dearest)), key=price, default=split)
        if price(best)[:-1] >= price(split)[:-1]:
            return split
        split = best


def _moves(split: Sequence[int], givers: Collection[int]) -> Iterator[list[int]]:
    """Each split in which one of these stages has given a layer to another stage."""
    for giver in givers:
        for taker in range(len(split)) if split[giver] > 1 else ():
            found = list(split)
            found[giver] -= 1
            found[taker] += 1
            yield found


def _cheapest(sums: xp.ndarray, stages: int, join: object) -> tuple[float, list[int]]:
    """By dynamic programming: best[j], the price of the first j layers in so many stages."""
    n, starts = len(sums) - 1, []
    best = xp.full(n + 1, xp.inf)
    best[0] = 0
    for stage in range(stages):
        longer, start = xp.full(n + 1, xp.inf), xp.zeros(n + 1, xp.int64)
        for j in range(stage + 1, n + 1):
            price = join(best[:j], sums[j] - sums[:j])  # type: ignore[operator]
            start[j] = price.argmin()
            longer[j] = price[start[j]]
        best = longer
        starts.append(start)
    edges = [n]
    for start in reversed(starts):
        edges.append(int(start[edges[-1]]))
    return float(best[n]), [b - a for a, b in pairwise(reversed(edges))]


def ranges(layers: int, stages: int, split: Sequence[int] | None = None) -> list[range]:
    """The layers of each stage: as many as `split` says, or as evenly as can be.

    >>> ranges(5, 2, [2, 3])
    [range(0, 2), range(2, 5)]
    """
    _check(layers, stages)
    split = balance([1.0] * layers, stages) if split is None else split
    if len(split) != stages or min(split) < 1 or sum(split) != layers:
        raise UserError(
            f"split {','.join(map(str, split))}: want {stages} numbers of layers, one a stage, "
            f"of at least 1 each and {layers} together"
        )
    return [range(b - n, b) for n, b in zip(split, accumulate(split))]


def _check(layers: int, stages: int) -> None:
    if not 1 <= stages <= layers:
        raise UserError(
            f"{layers} layers in {stages} stages: each stage needs at least one; use fewer ranks "
            "or chunks, or a model with more layers"
        )


def cut(
    model: Sequential, layers: Sequence[range], mine: Collection[int]
) -> tuple[Sequential, dict[int, Sequential]]:
    """Of a Sequential, what the stages `mine` need, under the names of the whole; and the stages.

    layers: those of every stage, as `ranges` gives them; mine: schedule.stages_of(rank).
    """
    if sum(map(len, layers)) != len(model):
        raise UserError(f"stages of {list(map(len, layers))} layers, of a model of {len(model)}")
    children = list(model.named_children())
    part = lambda stage: [children[k] for k in layers[stage]]
    stages = {stage: Sequential(dict(part(stage))) for stage in sorted(mine)}
    return Sequential(dict(child for stage in stages for child in part(stage))), stages
