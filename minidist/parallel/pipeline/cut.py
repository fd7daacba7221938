"""Cut a model into stages by cost, so that the slowest rank is as fast as possible."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import accumulate, pairwise

from ...errors import UserError
from ...kernels import arrays as xp
from ...nn import Sequential


def balance(
    costs: Sequence[float], stages: int, rank_of: Mapping[int, int] | None = None
) -> list[int]:
    """The number of layers of each stage: contiguous, at least one, the costliest stage cheapest.

    A pipeline runs at the pace of its costliest stage. An equal number of layers does not minimise
    it: if the layers cost 1, 1, 1 and 5, two layers a stage give 6, and 5 is possible. Among all
    cuts with the least maximum, take the one whose stages differ least (by the sum of squares), and
    among those one with larger later stages, because the earlier stages keep more micro-batches.

    If ranks have several stages (`rank_of` says which), the pipeline runs at the pace of its
    costliest rank. Then layers move, one by one, from stages of the costliest rank to others, as
    long as that makes the costliest rank cheaper, or else the ranks and then the stages more equal.

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
    """The split after moves of one layer, each the best one, until no move helps."""
    owners, sums = xp.array([rank_of[stage] for stage in range(len(split))]), sums / sums[-1]

    def loads(split: Sequence[int]) -> tuple[xp.ndarray, xp.ndarray]:
        stages = xp.diff(sums[[0, *accumulate(split)]])
        return xp.bincount(owners, weights=stages), stages

    def price(split: Sequence[int]) -> tuple:
        both = [round(float(n), 9) for each in loads(split) for n in (each.max(), each @ each)]
        return *both, tuple(split)

    while True:
        costliest = loads(split)[0].argmax()
        best = min(_moves(split, xp.flatnonzero(owners == costliest)), key=price, default=split)
        if price(best)[:-1] >= price(split)[:-1]:
            return split
        split = best


def _moves(split: Sequence[int], givers: Collection[int]) -> Iterator[list[int]]:
    """Every split in which one of the stages `givers` has given a layer to another stage."""
    for giver in givers:
        for taker in range(len(split)) if split[giver] > 1 else ():
            found = list(split)
            found[giver] -= 1
            found[taker] += 1
            yield found


def _cheapest(sums: xp.ndarray, stages: int, join: object) -> tuple[float, list[int]]:
    """Dynamic programming: best[j] is the least price of j layers in the stages so far."""
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
    """The layers of each stage: as many as `split` says, or as evenly as possible.

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
    model: Sequential, layers: Sequence[range], own: Collection[int]
) -> tuple[Sequential, dict[int, Sequential]]:
    """Cut a Sequential: a module with the layers of this rank, and its stages by number.

    layers: the layers of every stage, as `ranges` gives them. own: this rank's stages, as
    schedule.stages_of(rank) gives them. Parameters keep the names that they have in `model`.
    """
    if sum(map(len, layers)) != len(model):
        raise UserError(f"stages of {list(map(len, layers))} layers, of a model of {len(model)}")
    children = list(model.named_children())
    part = lambda stage: [children[k] for k in layers[stage]]
    stages = {stage: Sequential(dict(part(stage))) for stage in sorted(own)}
    return Sequential(dict(child for stage in stages for child in part(stage))), stages
