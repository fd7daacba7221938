"""What a rank of a pipeline does: actions, and a schedule of them, which is data."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

FORWARD, INPUT, WEIGHT, BACKWARD = "F", "I", "W", "B"
SEND_F, RECV_F, SEND_B, RECV_B = "SEND_F", "RECV_F", "SEND_B", "RECV_B"
COMPUTE = (FORWARD, INPUT, WEIGHT, BACKWARD)
SENDS, RECEIVES = (SEND_F, SEND_B), (RECV_F, RECV_B)
MESSAGES = (*SENDS, *RECEIVES)
KINDS = (*COMPUTE, *MESSAGES)
NEEDS = {FORWARD: RECV_F, INPUT: RECV_B, BACKWARD: RECV_B}  # the receive of what each takes
OVERLAP = "OVERLAP_F_B"


class Action(NamedTuple):
    """One thing that a stage does for a micro-batch.

    F is its forward; I the gradient by its input; W the gradients by its weights; B both, I then
    W. SEND_F sends what F made to the next stage, RECV_F receives what the stage before has sent;
    SEND_B sends what I or B made to the stage before, RECV_B receives what the next one has sent.
    The stage is that of the rank which acts. Both sides name a message by its receive.
    """

    stage: int
    kind: str
    microbatch: int

    @property
    def parts(self) -> tuple[Action, ...]:
        """What it consists of: itself."""
        return (self,)

    @property
    def need(self) -> Action | None:
        """The receive of what it takes from another stage, on whatever rank that is."""
        stage, kind, i = self
        return Action(stage, NEEDS[kind], i) if kind in NEEDS else None

    @property
    def received(self) -> Action:
        """The receive of what this send sends."""
        step, kind = (1, RECV_F) if self.kind == SEND_F else (-1, RECV_B)
        return Action(self.stage + step, kind, self.microbatch)

    @property
    def source(self) -> int:
        """The stage from which this receive receives."""
        return self.stage + (-1 if self.kind == RECV_F else 1)

    @property
    def boundary(self) -> int:
        """Between which stages this receive's message goes: 0 is between stages 0 and 1."""
        return self.stage - (self.kind == RECV_F)

    def __str__(self) -> str:
        return f"{self.stage}{self.kind}{self.microbatch}"


class Overlap(NamedTuple):
    """A forward and a full backward, of two micro-batches, as one action (DualPipe's F&B)."""

    forward: Action
    backward: Action

    @property
    def kind(self) -> str:
        return OVERLAP

    @property
    def parts(self) -> tuple[Action, ...]:
        return (self.forward, self.backward)

    def __str__(self) -> str:
        return f"({self.forward};{self.backward}){OVERLAP}"


Step = Action | Overlap


@dataclass(frozen=True)
class Schedule:
    """For every rank, the list of what it does, in order.

    orders[rank] are its steps. Stages are numbered as data flows; which rank has which, and how
    many micro-batches there are, the orders tell. A schedule of computing alone is complete as
    well: messages.with_messages() says when what is sent and received.

    >>> Schedule.of([["0F0", "0B0"]]).microbatches
    1
    """

    orders: tuple[tuple[Step, ...], ...]
    name: str = ""

    @staticmethod
    def of(orders: Iterable[Iterable[Step | str]], name: str = "") -> Schedule:
        """A schedule of actions, or of their texts."""
        from .text import parse

        steps = lambda order: tuple(parse(s) if isinstance(s, str) else s for s in order)
        return Schedule(tuple(steps(order) for order in orders), name)

    @property
    def ranks(self) -> int:
        return len(self.orders)

    def actions(self, rank: int) -> Iterator[Action]:
        """A rank's actions one by one, those of an Overlap too."""
        return (part for step in self.orders[rank] for part in step.parts)

    @cached_property
    def rank_of(self) -> dict[int, int]:
        """The rank that has a stage, by the first of its actions."""
        found: dict[int, int] = {}
        for rank in range(self.ranks):
            for action in self.actions(rank):
                found.setdefault(action.stage, rank)
        return dict(sorted(found.items()))

    @cached_property
    def stages(self) -> int:
        """How many there are; the last one computes the loss."""
        return 1 + max(self.rank_of, default=-1)

    @cached_property
    def microbatches(self) -> int:
        every = (a.microbatch for rank in range(self.ranks) for a in self.actions(rank))
        return 1 + max(every, default=-1)

    @cached_property
    def has_messages(self) -> bool:
        """Whether it says what is sent and received, or computing alone."""
        return any(a.kind in MESSAGES for r in range(self.ranks) for a in self.actions(r))

    @cached_property
    def has_backward(self) -> bool:
        """Whether it trains, or only evaluates."""
        kinds = BACKWARD, INPUT
        return any(a.kind in kinds for r in range(self.ranks) for a in self.actions(r))

    @cached_property
    def is_split(self) -> bool:
        """Whether some weight gradients are computed on their own."""
        return any(a.kind == WEIGHT for r in range(self.ranks) for a in self.actions(r))

    def stages_of(self, rank: int) -> list[int]:
        """This rank's stages (chunks of the model), ascending."""
        return [stage for stage, owner in self.rank_of.items() if owner == rank]

    def crosses(self, stage: int) -> bool:
        """Whether what `stage` makes goes to another rank: there is a next one, elsewhere."""
        after = stage + 1
        return after < self.stages and self.rank_of[stage] != self.rank_of[after]
