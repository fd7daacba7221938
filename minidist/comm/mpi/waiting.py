"""How a real rank waits: without spinning, for no longer than it may, and while others go on."""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from typing import Any

from greenlet import getcurrent, greenlet

from ..communicator import Request
from ..errors import DeadlineError
from ..guard.board import EXITED, Board
from ..settings import cuda_aware, deadline, debug_level

POLLS = 50  # of a crowded rank before it sleeps, which costs some 50 µs
LATE, LONGEST = 0.02, 5e-4  # by so much of its wait, and seconds, it may see the end later
LOOKS = 256  # polls between two looks at the clock and the board
GRACE = 0.5  # seconds in which the last message of a rank that has exited may still arrive


class World:
    """What all communicators of this process share."""

    def __init__(self, native: Any, crowded: bool):
        self.native, self.crowded = native, crowded
        self.debug, self.deadline, self.cuda_aware = debug_level(), deadline(), cuda_aware()
        self.works: list[Work] = []
        self.calls = 0  # a user's own messages
        self.board = Board(native) if native.Get_size() > 1 else None
        self.aside: Any = native.Dup() if self.debug else None  # for fingerprints
        atexit.register(self._leave)

    def say(self, call: str, site: str) -> None:
        if self.debug and self.board is not None:
            self.board.say(f"{call} at {site}")

    def leave(self) -> None:
        if self.debug and self.board is not None:
            self.board.leave()

    def complete(self, is_done: Callable[[], bool], call: str, whom: Sequence[int]) -> None:
        """Poll until it is done; meanwhile let go on what was started before.

        Raises DeadlineError, which says what the ranks `whom` did last.
        """
        here = getcurrent()
        if isinstance(here, Aside):
            here.work.call, here.work.whom = call, whom
            while not is_done():
                here.parent.switch()
            return
        polls, start = 0, time.monotonic()
        gone: float | None = None
        while not is_done():
            self.advance()
            polls += 1
            if self.crowded or polls > 1 << 16:
                if polls < POLLS:
                    os.sched_yield()
                else:
                    time.sleep(min(LATE * (time.monotonic() - start), LONGEST))
            if self.board is not None and polls % LOOKS == 0:
                gone = self._look(call, whom, start, gone)

    def advance(self) -> None:
        """One step of everything that goes on beside the program."""
        for work in list(self.works):
            work.advance()

    def _look(
        self, call: str, whom: Sequence[int], start: float, gone: float | None
    ) -> float | None:
        """Raise if that takes too long; returns since when one of them has been gone."""
        assert self.board is not None
        now = time.monotonic()
        if self.deadline is not None and now - start > self.deadline:
            limit = f"\na wait may last {self.deadline:g} s: MINIDIST_TIMEOUT=seconds changes that"
            why = self._why(call, whom, now - start) + limit
            time.sleep(GRACE / 2)  # others whose time is up now still read what this rank did last
            raise DeadlineError(why)
        if not any(self.board.has_exited(rank) for rank in whom):
            return None
        if gone is not None and now - gone > GRACE:
            raise DeadlineError(self._why(call, whom, now - start))
        return gone or now

    def _why(self, call: str, whom: Sequence[int], seconds: float) -> str:
        assert self.board is not None
        me, lines = self.native.Get_rank(), []
        for rank in whom:
            if rank == me:
                continue
            if self.board.is_in(rank, call):
                lines.append(f"rank {rank} is in {call} too")
                continue
            absent = "" if len(whom) == 1 else f"rank {rank} not in {call}; "
            lines.append(f"{absent}rank {rank} {self.board.seen(rank)}")
        return f"rank {me} has waited {seconds:.1f} s in {call}\n  " + "\n  ".join(lines)

    def _leave(self) -> None:
        if self.board is not None:
            self.board.leave(EXITED)
        for work in self.works:
            sys.stderr.write(
                f"rank {self.native.Get_rank()} exits while its {work.name} goes on: wait for it\n"
            )


class Aside(greenlet):
    """The greenlet of a Work."""

    work: Work


class Work(Request):
    """A collective that goes on beside the program, a step at each of its waits."""

    def __init__(self, world: World, main: Callable[[], Any], name: str):
        self.world, self.main, self.name = world, main, name
        self.result: Any = None
        self.error: BaseException | None = None
        self.call, self.whom = name, ()  # type: str, Sequence[int]
        self.greenlet = Aside(self._body)
        self.greenlet.work, self.greenlet.gr_context = self, copy_context()
        world.advance()
        world.works.append(self)
        self.advance()
        if self.error is not None:
            raise self.error

    def _body(self) -> None:
        try:
            self.result = self.main()
        except BaseException as error:
            self.error = error
        self.world.works.remove(self)

    def advance(self) -> None:
        """Go on until the next message that is not there yet."""
        if not self.greenlet.dead:
            self.greenlet.parent = getcurrent()
            self.greenlet.switch()

    def is_completed(self) -> bool:
        self.world.advance()
        return self.greenlet.dead

    def _is_beyond(self, stage: tuple[str, Sequence[int]]) -> bool:
        return self.greenlet.dead or (self.call, self.whom) != stage

    def wait(self) -> Any:
        while not self.greenlet.dead:
            stage = self.call, self.whom
            self.world.complete(partial(self._is_beyond, stage), *stage)
        if self.error is not None:
            raise self.error
        return self.result
