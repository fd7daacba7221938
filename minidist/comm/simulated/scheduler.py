"""The scheduler of simulated ranks: runs them one at a time and joins sends with receives."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

from greenlet import GreenletExit, getcurrent

from ..communicator import describe
from ..devices import fill
from ..errors import CommError, DeadlockError, MismatchError, UnmatchedError
from ..guard.fingerprint import Fingerprint, compare
from . import deadlock
from .clock import Clock
from .queues import ByTime, InTurn, Wire
from .tasks import Half, Task

POLLS = 10_000  # of requests, while nothing else happens: nothing will ever complete them


class Hub:
    """Ranks as greenlets: each runs until it must wait, then the next ready one is chosen."""

    def __init__(
        self, size: int, seed: int | None = None, eager_limit: int = 0, clock: Clock | None = None
    ):
        self.size, self.eager_limit, self.clock = size, eager_limit, clock
        draw = None if seed is None else random.Random(seed)
        self.ready = InTurn(draw) if clock is None else ByTime(draw)
        self.wire = Wire(clock)
        self.shuffles = draw is not None
        self.here = getcurrent()
        self.tasks: list[Task] = []  # the ranks' own programs
        self.beside: set[Task] = set()  # what they have started and is not done
        self.current: Task | None = None
        self.blocked: dict[Task, Half | Task] = {}
        self.waiting: dict[tuple, deque[Half]] = defaultdict(deque)  # sends or receives, never both
        self.called: dict[tuple, list[Fingerprint]] = {}
        self.closed, self.polls, self.posted = False, 0, 0

    def run(self, mains: list[Callable[[], Any]]) -> list[Any]:
        """Run every rank to its end; `mains[rank]()` is what rank does."""
        self.tasks = [Task(self, rank, main, "", 0.0) for rank, main in enumerate(mains)]
        for task in self.tasks:
            self.ready.put(task)
        try:
            while self.ready or self.wire:
                if self.wire.is_next(self.ready.first()):
                    self._deliver(*self.wire.take())
                else:
                    self._step(self.ready.take())
            self._check_finished()
        finally:
            self._kill()
        if self.clock is not None:
            self.clock.times = [task.time for task in self.tasks]
        return [task.result for task in self.tasks]

    def spawn(self, rank: int, main: Callable[[], Any], call: str) -> Task:
        """Let main() go on beside the rank's program, from now on."""
        parent = self.turn(rank)
        task = Task(self, rank, main, call, parent.time)
        self.beside.add(task)
        self.ready.put(parent, first=True)
        self.ready.put(task, first=True)  # so that wrong arguments are an error at the call
        self.here.switch()
        return task

    def post(self, half: Half) -> Half:
        """Join with the partner if it is there already, else wait in line for it."""
        task = self.turn(half.rank)
        # Without this a seed would reorder only the ranks that block: a buffer that is touched
        # before its wait would go unnoticed on every seed.
        if self.shuffles or self.ready.earlier_than(task):
            self.ready.put(task)
            self.here.switch()
        half.time, self.polls = task.time, 0
        line = self.waiting[half.channel]
        if line and (line[0].verb == "recv") != (half.verb == "recv"):
            self._join(line.popleft(), half)
            return half
        line.append(half)
        if half.verb == "send" and half.array.nbytes <= self.eager_limit > 0:
            half.array, half.done = half.array.copy(), True
            self._transfer(half)
        return half

    def wait(self, what: Half | Task) -> None:
        """Let others run until it is done."""
        task, self.polls = self.turn(what.rank), 0
        if not what.done:
            what.waiter, self.blocked[task] = task, what
            self.here.switch()
        if what.time > task.time:
            task.time = what.time

    def is_completed(self, what: Half | Task) -> bool:
        """Whether it is done, after the others had a turn."""
        task = self.turn(what.rank)
        if what.done and what.time <= task.time:
            return True
        self.polls += 1
        if self.polls > max(POLLS, 10 * (self.size + len(self.beside))) and not what.done:
            self.wait(what)
        later = [self.ready.next_time(), self.wire.next_time(), what.time if what.done else None]
        task.time = max(task.time, min((t for t in later if t), default=0.0))  # polling takes time
        self.ready.put(task, polls=True)
        self.here.switch()
        return what.done and what.time <= task.time

    def check(self, key: tuple, size: int, mine: Fingerprint, sites: bool) -> None:
        """Compare a rank's collective with those of the ranks that have called it before."""
        others = self.called.setdefault(key, [])
        others.append(mine)
        compare(others, sites)
        if len(others) == size:
            del self.called[key]

    def turn(self, rank: int) -> Task:
        """The running task, which must be one of that rank's."""
        task = self.current
        if task is None or task.rank != rank or getcurrent() is not task.greenlet:
            raise CommError(
                f"the communicator of simulated rank {rank} was used from outside that rank: "
                "let each rank use the `comm` it was called with, and only while it runs"
            )
        if self.closed:
            raise GreenletExit
        return task

    def finish(self, what: Half | Task, time: float) -> None:
        """It is done at that time: whoever waits for it may go on."""
        what.done, what.time, self.polls = True, time, 0
        if what.waiter is not None:
            del self.blocked[what.waiter]
            if time > what.waiter.time:
                what.waiter.time = time
            self.ready.put(what.waiter)
            what.waiter = None

    def _join(self, first: Half, second: Half) -> None:
        send, receive = (second, first) if first.verb == "recv" else (first, second)
        receive.error = _mismatch(send, receive)
        if receive.error is None:
            fill(receive.array, send.array)
        if send.done and not send.travels:  # it was eager, and has arrived
            self.finish(receive, max(send.arrives, receive.time))
            return
        send.partner = receive
        if not send.done:
            send.time = max(first.time, second.time)
            self._transfer(send)

    def _transfer(self, send: Half) -> None:
        send.travels = True
        if self.clock is None:
            self._deliver(send, send.time)
        else:
            self.wire.put(send)

    def _deliver(self, send: Half, end: float) -> None:
        """The message has arrived."""
        send.travels, send.arrives = False, end
        if not send.done:
            self.finish(send, end)
        receive, send.partner = send.partner, None  # whose array is none of the sender's
        if receive is not None:
            self.finish(receive, max(end, receive.time))

    def _step(self, task: Task) -> None:
        self.current = task
        try:
            task.greenlet.switch()
        except BaseException as error:
            error.add_note(f"raised on simulated rank {task.rank} of {self.size}")
            raise

    def _check_finished(self) -> None:
        if self.blocked:
            raise DeadlockError(deadlock.explain(self))
        left = [half for line in self.waiting.values() for half in line]
        if left:
            raise UnmatchedError("\n".join(["all ranks returned, but", *map(_left_over, left)]))

    def _kill(self) -> None:
        self.closed = True
        for task in (*self.tasks, *self.beside):
            if task.greenlet.dead:
                continue
            self.current = task
            with contextlib.suppress(Exception):  # a rank's clean-up must not hide the first error
                task.greenlet.throw(GreenletExit)


def _left_over(half: Half) -> str:
    missing = "never got its message" if half.verb == "recv" else "was never received"
    return f"  rank {half.rank} {half.call} of {describe(half.array)} {missing}"


def _mismatch(send: Half, receive: Half) -> MismatchError | None:
    if send.array.dtype == receive.array.dtype and send.array.size == receive.array.size:
        return None
    return MismatchError(
        f"rank {receive.rank} {receive.call} got {describe(send.array)} "
        f"from rank {send.rank} {send.call}, but `out` is {describe(receive.array)}: "
        "make `out` with the sender's dtype and number of elements"
    )
