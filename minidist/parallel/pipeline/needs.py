"""The needs of an action, which must be done before it: one table for all of this package.

Every rule concerns one micro-batch: an action needs only actions of its own micro-batch.

    action   needs at its own stage   needs from a neighbouring stage   its result is sent by
    F        -                        RECV_F, from the stage before     SEND_F
    I        F                        RECV_B, from the stage after      SEND_B
    B        F                        RECV_B, from the stage after      SEND_B
    W        I                        -                                 -
    SEND_F   F                        its receive has been posted       -
    SEND_B   I                        its receive has been posted       -
    RECV_F   -                        -                                 -
    RECV_B   -                        -                                 -

1. B is I and W in one action, so its result counts as I: SEND_B and the stage before take either.
2. The first stage reads the batch: its F receives nothing. The last stage computes the loss: its I
   and B receive nothing.
3. Two neighbouring stages on the same rank send nothing. Then F needs the F of the stage before,
   and I and B need the I of the stage after, directly.
4. A send is complete only when the other rank has posted the receive, as with MPI_Ssend. A
   schedule that ends under this rule ends with every MPI library, however little it buffers.

The four users: check/validate.py (is everything that an action needs earlier in its own list?),
check/dry_run.py (can all lists be run to their end?), check/messages.py (which result is sent?),
and the walks over the lists, study/simulate.py, run/runtime.py and run/receipts.py (which message
does a step wait for?).
"""

from __future__ import annotations

from typing import NamedTuple

from .actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    RECV_B,
    RECV_F,
    SEND_B,
    SEND_F,
    SENDS,
    WEIGHT,
    Action,
    Schedule,
)


class Rule(NamedTuple):
    """One line of the table."""

    own: tuple[str, ...] = ()
    receive: str | None = None
    sent_by: str | None = None


TABLE = {
    FORWARD: Rule(own=(), receive=RECV_F, sent_by=SEND_F),
    INPUT: Rule(own=(FORWARD,), receive=RECV_B, sent_by=SEND_B),
    BACKWARD: Rule(own=(FORWARD,), receive=RECV_B, sent_by=SEND_B),
    WEIGHT: Rule(own=(INPUT,)),
    SEND_F: Rule(own=(FORWARD,)),
    SEND_B: Rule(own=(INPUT,)),
    RECV_F: Rule(),
    RECV_B: Rule(),
}


def result(action: Action) -> Action:
    """The action by which others know this one's result: a B counts as its I (rule 1)."""
    return Action(action.stage, INPUT, action.microbatch) if action.kind == BACKWARD else action


def receive_for(action: Action) -> Action | None:
    """The receive of the message that an action waits for, if the neighbour is on another rank."""
    stage, kind, i = action
    receive = TABLE[kind].receive
    return None if receive is None else Action(stage, receive, i)


def send_of(action: Action) -> Action | None:
    """The send of an action's result, if the neighbour is on another rank."""
    stage, kind, i = action
    send = TABLE[kind].sent_by
    return None if send is None else Action(stage, send, i)


def _kinds_in_list(kind: str) -> tuple[str, ...]:
    own, receive, _ = TABLE[kind]
    full = (BACKWARD,) if kind == SEND_B else ()  # rule 1
    return (*own, *full) if receive is None else (*own, receive)


_IN_LIST = {kind: _kinds_in_list(kind) for kind in TABLE}  # once: it is read often


def needs_in_list(action: Action) -> list[Action]:
    """The actions that stand before an action in the list of its own rank, if they exist at all."""
    stage, kind, i = action
    return [Action(stage, k, i) for k in _IN_LIST[kind]]


class Needs:
    """The table applied to one schedule, which has a first stage, a last stage and a placement."""

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.known: dict[tuple[int, str], list[tuple[int, str]]] = {}

    def of(self, action: Action) -> list[tuple[int, str]]:
        """The (stage, kind) of all results, of any rank, without which an action cannot be done.

        They are of the action's own micro-batch. So they are worked out once for all micro-batches.
        """
        place = action[:2]
        found = self.known.get(place)
        if found is None:
            found = self.known[place] = self._find(action)
        return found

    def _find(self, action: Action) -> list[tuple[int, str]]:
        stage, kind, _ = action
        found = [(stage, own) for own in TABLE[kind].own]
        receive = receive_for(action)
        if receive is not None and 0 <= receive.source < self.schedule.stages:  # rule 2
            found.append((receive.source, self._provider(receive)))
        if kind in SENDS:  # rule 4
            found.append(action.received[:2])
        return found

    def _provider(self, receive: Action) -> str:
        """The kind of action by which the neighbour provides an array: its send, or rule 3."""
        send = SEND_F if receive.kind == RECV_F else SEND_B
        is_sent = self.schedule.has_messages and self.schedule.crosses(receive.boundary)
        return send if is_sent else TABLE[send].own[0]
