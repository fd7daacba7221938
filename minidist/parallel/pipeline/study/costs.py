"""The cost of a step: a time for each stage and kind; and numbers given once or for each stage."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....errors import UserError
from ..actions import BACKWARD, FORWARD, INPUT, WEIGHT, Overlap, Step

PerStage = float | Sequence[float]  # one number for all, or one for each


@dataclass(frozen=True)
class Costs:
    """How long a stage computes for one micro-batch: one number, or one for every stage.

    `input` is the time of I and `weight` the time of W; B takes both. An Overlap takes `overlap`,
    or the times of its two parts one after the other. Any unit of time will do; Fractions keep
    every sum exact.
    """

    forward: PerStage = 1
    input: PerStage = 1
    weight: PerStage = 1
    overlap: float | None = None

    def of(self, step: Step) -> float:
        """The time of one step.

        >>> from minidist.parallel.pipeline import Action
        >>> Costs(1, 2, weight=[1, 5]).of(Action(1, "B", 0))
        7
        """
        if isinstance(step, Overlap):
            together = self.of(step.forward) + self.of(step.backward)
            return together if self.overlap is None else self.overlap
        if step.kind == BACKWARD:
            return at(self.input, step.stage) + at(self.weight, step.stage)
        each = {FORWARD: self.forward, INPUT: self.input, WEIGHT: self.weight}
        return at(each[step.kind], step.stage)

    def check(self, stages: int) -> None:
        """Raise UserError for a time below 0, or where there is not one for each stage."""
        for name in ("forward", "input", "weight"):
            check_each(f"the cost of {name}", getattr(self, name), stages, "stages")
        check_each("the cost of overlap", 0 if self.overlap is None else self.overlap, 0, "")


UNIT = Costs()


def at(each: PerStage, index: int) -> float:
    """The number of one stage or boundary."""
    return each[index] if isinstance(each, Sequence) else each


def check_each(what: str, each: PerStage, count: int, things: str) -> None:
    """Raise UserError unless it is one number of 0 or more, or `count` of them."""
    numbers = list(each) if isinstance(each, Sequence) else [each]
    if isinstance(each, Sequence) and len(each) != count:
        raise UserError(f"{what}: {len(each)} numbers for {count} {things}: give 1 or {count}")
    if wrong := [n for n in numbers if not 0 <= n < float("inf")]:
        raise UserError(f"{what} is {wrong[0]}: want a number of 0 or more")
