"""How a real rank waits: it does not spin, has a time limit, and lets other collectives progress.

MPI runs nothing in the background. A rank that waits polls its request; between two polls it
advances every nonblocking collective that it has started. Such a collective is a greenlet (`Work`)
with the same code as the blocking one; if it must wait, it hands control back to the program. If
there are more ranks than cores, a rank that waits gives its core away at once: it sleeps until
another rank rings (bell.py). It looks at the board now and then (`Watch`): if the other rank has
exited, or the deadline has passed, it raises. Inside one of the library's own collectives
(algorithm="native") a rank cannot look, so a thread does.
"""

from __future__ import annotations

import atexit
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextvars import copy_context
from functools import partial
from threading import Lock, Thread, get_ident
from typing import Any

from greenlet import getcurrent, greenlet

from ..call_site import call_of, call_site
from ..communicator import Communicator, Request
from ..environment import cuda_aware, deadline, debug_level, notice
from ..errors import DeadlineError
from ..guard.abort import report_and_abort
from ..guard.board import EXITED, Board
from ..simulated.deadlock import find_cycle
from .bell import Bells, find_bells

SAFE = 1e-3  # the longest sleep in seconds, if no other rank rings
# Where there are no bells: polls of a crowded rank before it sleeps, because a sleep costs 50 µs;
# then a sleep lasts this share of the wait so far, at most these seconds.
POLLS, LATE, LONGEST = 50, 0.02, 5e-4
LOOKS = 256  # polls between two looks at the clock and the board
GRACE = 0.5  # seconds in which the last message of a rank that has exited may still arrive
LONG = 0.1  # seconds after which a wait is noted on the board


class Process:
    """The state that all communicators of this process share. `native` is the mpi4py world."""

    def __init__(self, native: Any, crowded: bool):
        self.native, self.crowded = native, crowded
        self.debug, self.cuda_aware = debug_level(), cuda_aware()
        self.deadline, self.notice = deadline(), notice()
        self.in_library: Watch | None = None  # the native collective that runs now
        self.library_lock, self.library_thread = Lock(), None  # type: Lock, Thread | None
        self.warned: set[str] = set()  # the calls whose long wait was reported on stderr
        self.open: set[Request] = set()  # messages whose buffers MPI still uses
        self.works: list[Work] = []  # nonblocking collectives that are not done
        self.calls = 0  # sends and receives of the user, numbered for the board
        self.board = Board(native) if native.Get_size() > 1 else None
        self.bells: Bells | None = None  # for more ranks than cores
        if self.board is not None and crowded:
            self.bells = find_bells(self.board, native.Get_rank(), native.Get_size())
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

    def ring(self, rank: int) -> None:
        """Wake a rank of the world that may be waiting for what was done now."""
        if self.bells is not None:
            self.bells.ring(rank)

    def wait_until(
        self, is_done: Callable[[], bool], call: str, peers: Sequence[int], long: bool = False
    ) -> None:
        """Poll until `is_done()`; meanwhile nonblocking collectives progress.

        `long`: it is a long message, for which the library of both ranks must run. Raises
        DeadlineError, which says what the ranks `peers` did last.
        """
        current = getcurrent()
        if isinstance(current, WorkGreenlet):
            current.work.call, current.work.peers = call, peers
            while not is_done():
                current.parent.switch()
            return
        polls, start, bells = 0, time.monotonic(), self.bells
        heard = bells.heard() if bells is not None else 0  # before the first poll
        watch: Watch | None = None
        try:
            while not is_done():
                self.progress()
                polls += 1
                if bells is not None:
                    if polls == 1 and (long or self.works):  # a peer may wait for this very poll
                        bells.ring(*peers)
                    bells.sleep(heard, SAFE)
                    heard = bells.heard()
                elif self.crowded or polls > 1 << 16:
                    if polls < POLLS:
                        os.sched_yield()
                    else:
                        time.sleep(min(LATE * (time.monotonic() - start), LONGEST))
                if self.board is not None and polls % LOOKS == 0:
                    watch = watch or Watch(self, self.board, call, peers, start)
                    watch.look()
        finally:
            if watch is not None:
                watch.end()

    def enter_library(self, comm: Communicator, call: str) -> None:
        """Watch this rank while it is inside one of the library's own collectives."""
        if self.board is None:
            return
        if self.library_thread is None:
            self.library_thread = Thread(target=self._watch_library, daemon=True)
            self.library_thread.start()
        watch = Watch(self, self.board, call, comm.ranks, time.monotonic())
        watch.comm, watch.thread = comm, get_ident()
        self.in_library = watch

    def leave_library(self) -> None:
        with self.library_lock:
            watch, self.in_library = self.in_library, None
            if watch is not None:
                watch.end()

    def _watch_library(self) -> None:
        """The thread: an exception here would end nothing, so it ends all ranks itself."""
        while True:
            time.sleep(LONG)
            with self.library_lock:
                watch = self.in_library
                try:
                    if watch is not None:
                        watch.look()
                except DeadlineError as error:
                    report_and_abort(watch.comm, error)  # type: ignore[union-attr]

    def progress(self) -> None:
        """One step of every nonblocking collective."""
        for work in list(self.works):
            work.advance()

    def _exit(self) -> None:
        if self.board is not None:
            self.board.note_end(EXITED)
        for work in self.works:
            sys.stderr.write(
                f"rank {self.native.Get_rank()} exits while its {work.name} goes on: wait for it\n"
            )


class Watch:
    """One wait of this rank for the ranks `peers`, looked at every LOOKS polls.

    1. After LONG seconds the wait is noted on the board, so that the others see that it waits.
    2. After the notice's seconds, a report on stderr says who waits for whom, once for each call.
    3. The deadline counts only time in which no rank can end the wait: neither a peer nor a rank
       that a peer waits for is running (Board.any_runs). So a rank that computes, compiles,
       evaluates or saves may take as long as it needs. A rank on another machine cannot be seen, so
       all the time of waiting for it counts.
    4. If a peer has exited, the wait ends with an error.
    """

    def __init__(
        self, process: Process, board: Board, call: str, peers: Sequence[int], start: float
    ):
        self.process, self.board, self.call, self.peers = process, board, call, peers
        self.start = self.stuck_since = start
        self.gone_since: float | None = None
        self.is_noted = self.is_late = self.is_reported = False
        # Only for a wait inside the library: the communicator, and the thread that waits.
        self.comm: Any = None
        self.thread = 0

    def look(self) -> None:
        """Note the wait, report it or raise an error, whichever is due now."""
        now = time.monotonic()
        self._raise_if_exited(now)
        if now - self.start < LONG:
            return
        if not self.is_noted:
            self._note()
        if not self.is_reported and now - self.start >= self.process.notice:
            self._report(now)
        if self.board.any_runs(self.peers):
            self.stuck_since = now
        elif now - self.stuck_since > self.process.deadline:
            self._raise_late(now)

    def end(self) -> None:
        """End the wait. A rank whose time is up keeps its note, because others still read it."""
        if not self.is_noted or self.is_late:
            return
        self.board.end_wait()
        if not self.process.debug:
            self.board.note_end()

    def _site(self) -> str:
        return call_of(sys._current_frames()[self.thread])[1] if self.thread else call_site()

    def _note(self) -> None:
        self.is_noted = True
        if not self.process.debug:  # in debug mode the call was noted at its beginning
            self.board.note(f"{self.call} at {self._site()}")
        self.board.note_wait(self.peers)

    def _report(self, now: float) -> None:
        self.is_reported = True
        site = self._site()
        if self.call in self.process.warned:
            return
        self.process.warned.add(self.call)
        sys.stderr.write(f"{self._why(now, site)}\n{self._outlook()}\n")
        sys.stderr.flush()

    def _outlook(self) -> str:
        if self.board.any_runs(self.peers):
            return "  this wait has no limit while a rank that it depends on runs"
        ends = f"the job ends after {self.process.deadline:g} s of this"
        return f"  no rank that it depends on is running: {ends}"

    def _raise_late(self, now: float) -> None:
        self.is_late = True
        why = self._why(now) + (
            f"\n  no rank that it depends on was running for {self.process.deadline:g} s: "
            "let all ranks make the same collective calls in the same order, and give each send "
            "its receive\nMINIDIST_TIMEOUT=seconds or launch(…, timeout=seconds) changes this "
            "limit; MINIDIST_DEBUG=1 reports more"
        )
        # Other ranks whose time is up now must still be able to read what this rank did last.
        time.sleep(GRACE / 2)
        raise DeadlineError(why)

    def _raise_if_exited(self, now: float) -> None:
        if not any(self.board.has_exited(rank) for rank in self.peers):
            return
        self.gone_since = self.gone_since or now
        if now - self.gone_since > GRACE:
            self.is_late = True
            raise DeadlineError(self._why(now))

    def _why(self, now: float, site: str = "") -> str:
        me, lines = self.process.native.Get_rank(), []
        for rank in self.peers:
            if rank == me:
                continue
            if self.board.is_in(rank, self.call):
                lines.append(f"rank {rank} is in {self.call} too")
                continue
            absent = "" if len(self.peers) == 1 else f"rank {rank} not in {self.call}; "
            lines.append(f"{absent}rank {rank} {self.board.last_seen(rank)}")
        waits = {rank: self.board.waits_for(rank) for rank in self.board.notes}
        cycle = [] if self.process.debug else find_cycle(waits)
        if len(cycle) > 1:
            lines.append("cycle: " + " -> ".join(map(str, [*cycle, cycle[0]])))
        whom = f" for rank {self.peers[0]}" if len(self.peers) == 1 else ""
        first = f"rank {me} has waited {now - self.start:.1f} s in {self.call}{whom}"
        return "\n  ".join([f"{first} at {site}" if site else first, *lines])


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
            self.process.wait_until(partial(self._is_beyond, stage), *stage, long=True)
        if self.error is not None:
            raise self.error
        return self.result
