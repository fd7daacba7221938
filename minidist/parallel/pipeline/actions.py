"""Actions and schedules: a schedule is data, one list of actions for each rank.

The text of an action is read and written in this file as well; files of schedules are in text.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

from ...errors import UserError

FORWARD, INPUT, WEIGHT, BACKWARD = "F", "I", "W", "B"
SEND_F, RECV_F, SEND_B, RECV_B = "SEND_F", "RECV_F", "SEND_B", "RECV_B"
COMPUTE = (FORWARD, INPUT, WEIGHT, BACKWARD)
SENDS, RECEIVES = (SEND_F, SEND_B), (RECV_F, RECV_B)
MESSAGES = (*SENDS, *RECEIVES)
KINDS = (*COMPUTE, *MESSAGES)
OVERLAP = "OVERLAP_F_B"


class Action(NamedTuple):
    """One thing that a rank does: a stage, a kind and a micro-batch.

    Computing:
        F       the forward of the stage; the last stage computes the loss as well
        I       the gradient with respect to the stage's input
        W       the gradients with respect to the stage's weights
        B       the full backward: I, then W
    Messages:
        SEND_F  send the output of F to the next stage
        RECV_F  receive the input of F from the previous stage
        SEND_B  send the gradient of I or B to the previous stage
        RECV_B  receive the gradient of this stage's output from the next stage

    `stage` is always a stage of the rank that acts. The sender and the receiver both name a message
    by its receive: the message that `2SEND_F0` sends is `3RECV_F0`. needs.py says which actions
    must be done before an action.
    """

    stage: int
    kind: str
    microbatch: int

    @property
    def parts(self) -> tuple[Action, ...]:
        """The action itself; an Overlap has two parts."""
        return (self,)

    @property
    def received(self) -> Action:
        """The receive that takes this send's message."""
        step, kind = (1, RECV_F) if self.kind == SEND_F else (-1, RECV_B)
        return Action(self.stage + step, kind, self.microbatch)

    @property
    def source(self) -> int:
        """The stage from which this receive receives."""
        return self.stage + (-1 if self.kind == RECV_F else 1)

    @property
    def boundary(self) -> int:
        """The boundary that this receive's message crosses: 0 is between stages 0 and 1."""
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
    """For every rank, the list of its steps in order.

    `orders[rank]` are the steps of a rank. Stages are numbered in the direction of the data. The
    lists alone say which rank has which stage, and how many micro-batches there are. A schedule
    without messages is complete as well: check/messages.py adds them.

    >>> Schedule.of([["0F0", "0B0"]]).microbatches
    1
    """

    orders: tuple[tuple[Step, ...], ...]
    name: str = ""
    notes: tuple[str, ...] = field(default=(), compare=False)  # remarks about reading its file

    @staticmethod
    def of(
        orders: Iterable[Iterable[Step | str]], name: str = "", notes: Iterable[str] = ()
    ) -> Schedule:
        """A schedule of actions, or of their texts."""
        steps = lambda order: tuple(parse(s) if isinstance(s, str) else s for s in order)
        return Schedule(tuple(steps(order) for order in orders), name, tuple(notes))

    @property
    def ranks(self) -> int:
        return len(self.orders)

    def actions(self, rank: int) -> Iterator[Action]:
        """A rank's actions one by one; an Overlap counts as two."""
        return (part for step in self.orders[rank] for part in step.parts)

    @cached_property
    def rank_of(self) -> dict[int, int]:
        """The rank of each stage: the first rank that has an action of it."""
        found: dict[int, int] = {}
        for rank in range(self.ranks):
            for action in self.actions(rank):
                found.setdefault(action.stage, rank)
        return dict(sorted(found.items()))

    @cached_property
    def stages(self) -> int:
        """The number of stages; the last one computes the loss."""
        return 1 + max(self.rank_of, default=-1)

    @cached_property
    def microbatches(self) -> int:
        every = (a.microbatch for rank in range(self.ranks) for a in self.actions(rank))
        return 1 + max(every, default=-1)

    @cached_property
    def has_messages(self) -> bool:
        """Whether the lists contain sends and receives, or only computing."""
        return any(a.kind in MESSAGES for r in range(self.ranks) for a in self.actions(r))

    @cached_property
    def has_backward(self) -> bool:
        """Whether the schedule trains, or only evaluates."""
        kinds = BACKWARD, INPUT
        return any(a.kind in kinds for r in range(self.ranks) for a in self.actions(r))

    @cached_property
    def is_split(self) -> bool:
        """Whether some backwards are split into I and W."""
        return any(a.kind == WEIGHT for r in range(self.ranks) for a in self.actions(r))

    def stages_of(self, rank: int) -> list[int]:
        """This rank's stages (chunks of the model), ascending."""
        return [stage for stage, owner in self.rank_of.items() if owner == rank]

    @cached_property
    def crossings(self) -> frozenset[int]:
        """The boundaries between stages on different ranks: only these are crossed by messages.

        Boundary s is between stages s and s + 1.
        """
        ranks = self.rank_of
        return frozenset(s for s, rank in ranks.items() if ranks.get(s + 1, rank) != rank)

    def crosses(self, boundary: int) -> bool:
        """Whether messages cross a boundary: the two stages exist and are on different ranks."""
        return boundary in self.crossings


# The text of an action

DIGITS = 6  # a larger stage or micro-batch is a mistake, and counting up to it would take minutes

# [0-9], not \d: int("٣") is 3, so the text that is written would differ from the text that was read
_ACTION = re.compile(r"(?P<stage>[0-9]+)(?P<kind>[A-Z][A-Z_]*)(?P<microbatch>[0-9]*)")
_OVERLAP = re.compile(r"\((?P<forward>[^();]*);(?P<backward>[^();]*)\)\s*(?P<name>\w+)")
LIKE = f"a cell looks like 0F3 (stage 0, F, micro-batch 3), 1SEND_F0 or (0F7;7B3){OVERLAP}"


def parse(cell: str, where: str = "") -> Step:
    """The action that a cell of a file says; blanks around it do not count.

    Raises UserError for any other text. The error's message begins with `where`.

    >>> parse(" 0F3 ")
    Action(stage=0, kind='F', microbatch=3)
    """
    text = cell.strip()
    pair = _OVERLAP.fullmatch(text)
    return _parse_overlap(pair, where) if pair else _parse_action(text, where)


def _parse_action(text: str, where: str) -> Action:
    found = _ACTION.fullmatch(text)
    if not found:
        raise _error(where, text, LIKE + _separator(text))
    if found["kind"] not in KINDS:
        known = ", ".join(KINDS)
        raise _error(where, text, f"{found['kind']} is unknown: use one of {known}")
    if not found["microbatch"]:
        raise _error(where, text, f"the micro-batch is missing: {LIKE}")
    numbers = (_number(found[part], where, text) for part in ("stage", "microbatch"))
    return Action(next(numbers), found["kind"], next(numbers))


def _parse_overlap(found: re.Match[str], where: str) -> Overlap:
    if found["name"] != OVERLAP:
        raise _error(where, found[0], f"{found['name']} is unknown: {LIKE}")
    parts = (_parse_action(found[part].strip(), where) for part in ("forward", "backward"))
    pair = Overlap(*parts)
    if (pair.forward.kind, pair.backward.kind) != (FORWARD, BACKWARD):
        raise _error(where, found[0], f"what overlaps is an F, then a B: {LIKE}")
    return pair


def _number(digits: str, where: str, text: str) -> int:
    if len(digits) > DIGITS:
        raise _error(where, text, f"want a number of at most {DIGITS} digits")
    if digits != str(int(digits)):
        raise _error(where, text, f"want {int(digits)} for {digits}, without leading zeros")
    return int(digits)


def _separator(text: str) -> str:
    return "; cells are joined by commas" if re.search(r"[;\t ]", text) else ""


def _error(where: str, text: str, remedy: str) -> UserError:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return UserError(f"{where}cell {shown!r}: {remedy}")
