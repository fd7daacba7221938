"""How a real rank waits: it does not spin, has a time limit, and lets other collectives progress.

MPI runs nothing in the background. A rank that waits polls its request; between two polls it
advances every nonblocking collective that it has started. Such a collective is a greenlet (`Work`)
with the same code as the blocking one; if it must wait, it hands control back to the program. A
rank that polls long gives its core away, first by sched_yield, then by sleeping, and looks at the
board now and then: if the other rank has exited, or the deadline has passed, it raises.
"""

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
from ..environment import cuda_aware, deadline, debug_level
from ..errors import DeadlineError
from ..guard.board import EXITED, Board

POLLS = 50  # polls of a crowded rank before it sleeps; a sleep costs some 50 µs
LATE, LONGEST = 0.02, 5e-4  # a sleep lasts this share of the wait so far, at most these seconds
LOOKS = 256  # polls between two looks at the clock and the board
GRACE = 0.5  # seconds in which the last message of a rank that has exited may still arrive


class Process:
    """The state that all communicators of this process share. `native` is the mpi4py world."""

    def __init__(self, native: Any, crowded: bool):
        self.native, self.crowded = native, crowded
        self.debug, self.deadline, self.cuda_aware = debug_level(), deadline(), cuda_aware()
        self.open: set[Request] = set()  # messages whose buffers MPI still uses
        self.works: list[Work] = []  # nonblocking collectives that are not done
        self.calls = 0  # sends and receives of the user, numbered for the board
        self.board = Board(native) if native.Get_size() > 1 else None
        self.fingerprints: Any = native.Dup() if self.debug else None  # a communicator for them
        # At the end of the process the others must learn that they wait in vain.
        atexit.register(self._exit)

    def note(self, call: str, site: str) -> None:
        """Write on the board what this rank does now."""
        if self.debug and self.board is not None:
            self.board.note(f"{call} at {site}")

    def note_end(self) -> None:
        """Write on the board that the last call has returned."""
        if self.debug and self.board is not None:
            self.board.note_end()

    def wait_until(self, is_done: Callable[[], bool], call: str, peers: Sequence[int]) -> None:
        """Poll until `is_done()`; meanwhile nonblocking collectives progress.

        Raises DeadlineError, which says what the ranks `peers` did last.
        """
        current = getcurrent()
        if isinstance(current, WorkGreenlet):
            current.work.call, current.work.peers = call, peers
            while not is_done():
                current.parent.switch()
            return
        polls, start = 0, time.monotonic()
        gone_since: float | None = None
        while not is_done():
            self.progress()
            polls += 1
            if self.crowded or polls > 1 << 16:
                if polls < POLLS:
                    os.sched_yield()
                else:
                    time.sleep(min(LATE * (time.monotonic() - start), LONGEST))
            if self.board is not None and polls % LOOKS == 0:
                gone_since = self._raise_if_late(call, peers, start, gone_since)

    def progress(self) -> None:
        """One step of every nonblocking collective."""
        for work in list(self.works):
            work.advance()

    def _raise_if_late(
        self, call: str, peers: Sequence[int], start: float, gone_since: float | None
    ) -> float | None:
        """Raise after the deadline, or if a peer has exited; returns when that was first seen."""
        assert self.board is not None
        now = time.monotonic()
        if self.deadline is not None and now - start > self.deadline:
            limit = f"\na wait may last {self.deadline:g} s: MINIDIST_TIMEOUT=seconds changes that"
            why = self._why(call, peers, now - start) + limit
            # Other ranks whose time is up now must still be able to read what this rank did last.
            time.sleep(GRACE / 2)
            raise DeadlineError(why)
        if not any(self.board.has_exited(rank) for rank in peers):
            return None
        if gone_since is not None and now - gone_since > GRACE:
            raise DeadlineError(self._why(call, peers, now - start))
        return gone_since or now

    def _why(self, call: str, peers: Sequence[int], seconds: float) -> str:
        assert self.board is not None
        me, lines = self.native.Get_rank(), []
        for rank in peers:
            if rank == me:
                continue
            if self.board.is_in(rank, call):
                lines.append(f"rank {rank} is in {call} too")
                continue
            absent = "" if len(peers) == 1 else f"rank {rank} not in {call}; "
            lines.append(f"{absent}rank {rank} {self.board.last_seen(rank)}")
        return f"rank {me} has waited {seconds:.1f} s in {call}\n  " + "\n  ".join(lines)

    def _exit(self) -> None:
        if self.board is not None:
            self.board.note_end(EXITED)
        for work in self.works:
            sys.stderr.write(
                f"rank {self.native.Get_rank()} exits while its {work.name} goes on: wait for it\n"
            )


class WorkGreenlet(greenlet):
    """The greenlet of a Work."""

    work: Work


class Work(Request):
    """A nonblocking collective: a greenlet that runs on at each wait of the program."""

    def __init__(self, process: Process, main: Callable[[], Any], name: str):
        self.process, self.main, self.name = process, main, name
        self.result: Any = None
        self.error: BaseException | None = None
        self.call, self.peers = name, ()  # type: str, Sequence[int]
        self.greenlet = WorkGreenlet(self._body)
        self.greenlet.work, self.greenlet.gr_context = self, copy_context()
        process.progress()
        process.works.append(self)
        self.advance()
        if self.error is not None:
            raise self.error

    def _body(self) -> None:
        try:
            self.result = self.main()
        except BaseException as error:
            self.error = error
        self.process.works.remove(self)

    def advance(self) -> None:
        """Run on until the next message that has not come yet."""
        if not self.greenlet.dead:
            self.greenlet.parent = getcurrent()
            self.greenlet.switch()

    def is_completed(self) -> bool:
        self.process.progress()
        return self.greenlet.dead

    def _is_beyond(self, stage: tuple[str, Sequence[int]]) -> bool:
        return self.greenlet.dead or (self.call, self.peers) != stage

    def wait(self) -> Any:
        while not self.greenlet.dead:
            stage = self.call, self.peers
            self.process.wait_until(partial(self._is_beyond, stage), *stage)
        if self.error is not None:
            raise self.error
        return self.result
