"""Validate a schedule: check every rule before a rank starts; an error names its place."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import count

from ..actions import (
    BACKWARD,
    COMPUTE,
    FORWARD,
    INPUT,
    KINDS,
    RECEIVES,
    SENDS,
    WEIGHT,
    Action,
    Overlap,
    Schedule,
)
from ..needs import needs_in_list
from .dry_run import DryRun, ScheduleError, place
from .messages import message, with_messages

__all__ = ["ScheduleError", "validate"]

Place = tuple[int, int]  # rank, step
Channel = tuple[int, str]  # the receiving stage, and what receives
FULL = [{FORWARD, BACKWARD}, {FORWARD, INPUT, WEIGHT}]
ASCENDING = {FORWARD: (FORWARD,), INPUT: (INPUT,), WEIGHT: (WEIGHT,), BACKWARD: (WEIGHT, INPUT)}
REASONS = {
    FORWARD: "running statistics follow the order of F",
    INPUT: "the stage before takes the gradients in this order",
    WEIGHT: "gradients of weights are summed in this order, and in another their last bits differ",
}


def validate(schedule: Schedule, max_live: int | None = None) -> Schedule:
    """Return the schedule with its messages, ready to be run; ScheduleError if a rule is broken.

    - Stages and micro-batches are numbered from 0 without holes, each stage is on one rank, and
      every rank has one.
    - For each stage and micro-batch there is one F, and one B or one I and one W. A schedule
      without any backward is for evaluation.
    - Everything that an action needs comes earlier in the list of its rank (needs.py).
    - A stage takes the micro-batches in ascending order: in its F, in its I and B, in its W and B.
      So it adds the same numbers in the same order as accumulation without a pipeline.
    - An array that another rank needs has one send and one receive; the receives of a channel are
      in the order of its sends; nothing else is sent.
    - The lists run to their end even if every send blocks until it is received (the dry run; these
      are the MPI standard's safe programs, section 3.5).
    - With `max_live`, no rank keeps the activations of more (stage, micro-batch) pairs at once:
      they live from the start of F to the end of B or W.

    The error names the rank, the step (counted from 0, as in orders[rank]) and the action. The time
    grows linearly with the number of actions.
    """
    rules = _Rules(schedule)
    rules.check_numbers()
    rules.check_each_once()
    rules.check_messages()
    rules.check_needs()
    rules.check_ascending()
    rules.check_live(max_live)
    complete = with_messages(schedule)
    dry_run = DryRun(complete)
    for _ in dry_run.run():
        pass
    dry_run.check_finished()
    return complete


class _Rules:
    """The rules that need no dry run, and the place of every action."""

    def __init__(self, schedule: Schedule):
        self.schedule, self.rank_of = schedule, schedule.rank_of
        self.where: dict[Action, Place] = {}
        if not schedule.ranks:
            raise ScheduleError("a schedule of no ranks: want a list of steps for each")
        for rank, order in enumerate(schedule.orders):
            if not order:
                raise ScheduleError(f"rank {rank} does nothing: give it a stage, or leave it out")
        for rank, number, action in self._walk():
            self._check_one(rank, number, action)
            self.where[action] = rank, number
        kinds = {action.kind for action in self.where}
        self.trains = bool(kinds & {BACKWARD, INPUT, WEIGHT})

    def _walk(self) -> Iterator[tuple[int, int, Action]]:
        for rank, order in enumerate(self.schedule.orders):
            for number, step in enumerate(order):
                for part in step.parts:
                    yield rank, number, part

    def _place(self, action: Action) -> str:
        return place(*self.where[action], action)

    def _check_one(self, rank: int, number: int, action: Action) -> None:
        here, stage = place(rank, number, action), action.stage
        if action.kind not in KINDS:
            raise ScheduleError(f"{here}: want one of {', '.join(KINDS)}")
        if stage < 0 or action.microbatch < 0:
            raise ScheduleError(f"{here}: stages and micro-batches are numbered from 0")
        step = self.schedule.orders[rank][number]
        if isinstance(step, Overlap) and (step.forward.kind, step.backward.kind) != ("F", "B"):
            raise ScheduleError(f"rank {rank}, step {number} ({step}): F and B overlap, no others")
        if self.rank_of[stage] != rank:
            other = next(a for a in self.where if a.stage == stage)
            raise ScheduleError(
                f"stage {stage} is on two ranks: {self._place(other)} and {here}; want it on one"
            )
        if action in self.where:
            raise ScheduleError(
                f"{here}: step {self.where[action][1]} is the same; want every action once"
            )

    def check_numbers(self) -> None:
        """Stages and micro-batches have no holes."""
        for name, numbers in (
            ("stage", {a.stage for a in self.where}),
            ("micro-batch", {a.microbatch for a in self.where}),
        ):
            if len(numbers) <= max(numbers):
                hole = next(n for n in count() if n not in numbers)
                beyond = next(a for a in self.where if getattr(a, name.replace("-", "")) > hole)
                raise ScheduleError(
                    f"{self._place(beyond)}, but {name} {hole} is nowhere: number them from 0 "
                    "without holes"
                )

    def check_each_once(self) -> None:
        """A stage does one forward for each micro-batch, and one whole backward if it trains."""
        full = FULL if self.trains else [{FORWARD}]
        for stage in range(self.schedule.stages):
            for i in range(self.schedule.microbatches):
                kinds = {kind for kind in COMPUTE if Action(stage, kind, i) in self.where}
                if kinds not in full:
                    raise ScheduleError(self._incomplete(stage, kinds, i))

    def _incomplete(self, stage: int, kinds: set[str], i: int) -> str:
        there = [self._place(Action(stage, kind, i)) for kind in COMPUTE if kind in kinds]
        found = "; ".join(there) or f"rank {self.rank_of[stage]}"
        f, b, g, w = (Action(stage, k, i) for k in (FORWARD, BACKWARD, INPUT, WEIGHT))
        if FORWARD not in kinds:
            return f"{found}: {f} is missing; stage {stage} takes every micro-batch once"
        if BACKWARD in kinds:
            return f"{found}: {b} is both {g} and {w}; want {b} alone, or these two"
        if WEIGHT in kinds:
            return f"{found}: {g} is missing, which {w} follows; or want {b} alone"
        if INPUT in kinds:
            return f"{found}: {w} is missing; without it the gradients lack micro-batch {i}"
        return f"{found}: its backward is missing; want {b}, or {g} and {w}"

    def check_messages(self) -> None:
        """Exactly the arrays that other ranks need are sent, once; channels keep their order."""
        if not self.schedule.has_messages:
            return
        expected: set[Action] = set()
        for action in self.where:
            for send, receive in message(self.schedule, action):
                expected |= {send, receive}
                self._check_pair(action, send, receive)
        for action in self.where:
            if action.kind not in COMPUTE and action not in expected:
                raise ScheduleError(f"{self._place(action)}: {self._superfluous(action)}")
        self._check_channels()

    def _check_pair(self, made: Action, send: Action, receive: Action) -> None:
        for action in (send, receive):
            if action not in self.where:
                raise ScheduleError(
                    f"rank {self.rank_of[action.stage]}: {action} is missing; {self._place(made)} "
                    f"makes what rank {self.rank_of[receive.stage]} needs: want {send}, {receive}"
                )

    def _superfluous(self, action: Action) -> str:
        """Why no such message exists."""
        stage = action.stage
        other = action.received.stage if action.kind in SENDS else action.source
        if other < 0:
            return "there is no stage before the first; leave it out"
        if other not in self.rank_of:
            return f"stage {stage} is the last; leave it out"
        if self.rank_of[other] == self.rank_of[stage]:
            return f"stage {other} is on this rank too, which sends itself nothing; leave it out"
        return "without a backward no gradients are sent; leave it out"

    def _check_channels(self) -> None:
        sends: dict[Channel, list[Action]] = defaultdict(list)
        receives: dict[Channel, list[Action]] = defaultdict(list)
        for action in self.where:
            if action.kind in SENDS:
                sends[action.received[:2]].append(action)
            elif action.kind in RECEIVES:
                receives[action[:2]].append(action)
        for channel, posted in receives.items():
            for send, receive in zip(sends[channel], posted):
                if send.microbatch != receive.microbatch:
                    raise ScheduleError(
                        f"{self._place(receive)} would get what {self._place(send)} sends: "
                        "receive in the order of the sends, in which messages arrive"
                    )

    def check_needs(self) -> None:
        """An action comes after everything that it needs from its own rank.

        An action that is in no list is skipped: check_each_once and check_messages have found
        whatever is missing.
        """
        absent = (0, -1)
        for action, (_, number) in self.where.items():
            for need in needs_in_list(action):
                after = self.where.get(need, absent)[1]
                if after >= number:
                    how = "in the same step" if after == number else f"only at step {after}"
                    raise ScheduleError(
                        f"{self._place(action)} needs {need}, which comes {how}: want it before"
                    )

    def check_ascending(self) -> None:
        """A stage takes the micro-batches in ascending order."""
        last: dict[tuple[int, str], Action] = {}
        for action in self.where:
            for way in ASCENDING.get(action.kind, ()):
                before = last.get((action.stage, way), action)
                if before.microbatch > action.microbatch:
                    raise ScheduleError(
                        f"{self._place(action)} comes after {before} (step "
                        f"{self.where[before][1]}): want micro-batches in ascending order; "
                        + REASONS[way]
                    )
                last[action.stage, way] = action

    def check_live(self, max_live: int | None) -> None:
        """No rank keeps the activations of more than `max_live` pairs (stage, micro-batch)."""
        if max_live is None or not self.trains:
            return
        for rank, order in enumerate(self.schedule.orders):
            live = 0
            for number, step in enumerate(order):
                live += sum(part.kind == FORWARD for part in step.parts)
                if live > max_live:
                    raise ScheduleError(
                        f"{place(rank, number, step)}: the rank then holds the activations of "
                        f"{live} micro-batches of its stages, and may hold {max_live}: "
                        "do a B or W before, or allow more"
                    )
                live -= sum(part.kind in (BACKWARD, WEIGHT) for part in step.parts)
