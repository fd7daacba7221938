"""The scheduler of simulated ranks: runs them one at a time and joins sends with receives.

1. Every rank's program is a task, a greenlet. One task runs at a time, until it must wait.
2. A send or a receive is posted to its channel (communicator, source, dest, tag). If its partner
   has come, the message is copied at once; otherwise it stands in line until the partner comes.
3. A task that waits for something unfinished is `blocked`. Control returns to `run`, which takes
   the next ready task, or the next message if a virtual clock carries messages.
4. `_complete` finishes a request and makes the task that waits for it ready again.
5. When nothing is ready, all tasks have returned, or those that are blocked are in a deadlock.
"""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict, deque
from collections.abc import Callable
from contextvars import copy_context
from functools import partial
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from ..buffers import fill
from ..call_site import call_of
from ..communicator import describe
from ..errors import CommError, DeadlockError, MismatchError, UnmatchedError
from ..guard.fingerprint import Fingerprint, compare
from .clock import Clock
from .deadlock import BlockedCall, explain
from .queues import ByTime, RoundRobin, Wire
from .requests import MessageEnd, Pending, Receive, Send, Task

POLLS = 10_000  # polls of requests while nothing else happens: after these it is a deadlock


class Scheduler:
    """Runs `size` ranks; `seed` draws the order, `clock` gives every event a time."""

    def __init__(
        self, size: int, seed: int | None = None, eager_limit: int = 0, clock: Clock | None = None
    ):
        self.size, self.eager_limit, self.clock = size, eager_limit, clock
        draw = None if seed is None else random.Random(seed)
        self.ready = RoundRobin(draw) if clock is None else ByTime(draw)
        self.wire = Wire(clock)
        self.shuffles = draw is not None
        self.greenlet = getcurrent()  # the one that `run` is called in
        self.tasks: list[Task] = []  # the ranks' own programs
        self.started: set[Task] = set()  # nonblocking collectives that are not done
        self.current: Task | None = None
        self.blocked: dict[Task, Pending] = {}  # the request that each task waits for
        # Requests without a partner, by channel: sends or receives, never both.
        self.unmatched: dict[tuple, deque[MessageEnd]] = defaultdict(deque)
        self.called: dict[tuple, list[Fingerprint]] = {}
        self.closed, self.polls, self.posted = False, 0, 0

    def run(self, mains: list[Callable[[], Any]]) -> list[Any]:
        """Run every rank's program `mains[rank]()` to its end; return the results."""
        self.tasks = [self._new_task(rank, main, "", 0.0) for rank, main in enumerate(mains)]
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
        """Start main() as a task of its own, beside the rank's program."""
        parent = self.running(rank)
        task = self._new_task(rank, main, call, parent.time)
        self.started.add(task)
        self.ready.put(parent, first=True)
        self.ready.put(task, first=True)  # so that wrong arguments are an error at the call
        self.greenlet.switch()
        return task

    def post(self, request: MessageEnd) -> MessageEnd:
        """Join the request with its partner; put it in line if the partner has not come yet."""
        request.number, self.posted = self.posted, self.posted + 1
        task = self.running(request.rank)
        # Without this a seed would reorder only the ranks that block: a buffer that is touched
        # before its wait would go unnoticed on every seed.
        if self.shuffles or self.ready.earlier_than(task):
            self.ready.put(task)
            self.greenlet.switch()
        request.time, self.polls = task.time, 0
        line = self.unmatched[request.channel]
        if line and line[0].side != request.side:
            self._join(line.popleft(), request)
            return request
        line.append(request)
        # Synchronous sends are never eager.
        if request.verb == "send" and request.array.nbytes <= self.eager_limit > 0:
            assert isinstance(request, Send)
            request.array, request.done = request.array.copy(), True
            self._transfer(request)
        return request

    def wait(self, request: Pending) -> None:
        """Let other tasks run until the request is done."""
        task, self.polls = self.running(request.rank), 0
        if not request.done:
            request.waiter, self.blocked[task] = task, request
            self.greenlet.switch()
        if request.time > task.time:
            task.time = request.time

    def is_completed(self, request: Pending) -> bool:
        """Whether the request is done, after the other tasks had a turn."""
        task = self.running(request.rank)
        if request.done and request.time <= task.time:
            return True
        self.polls += 1
        limit = max(POLLS, 10 * (self.size + len(self.started)))
        if self.polls > limit and not request.done:
            self.wait(request)
        # Polling takes time: the task's clock moves on to the next event.
        done = request.time if request.done else None
        later = [self.ready.next_time(), self.wire.next_time(), done]
        task.time = max(task.time, min((t for t in later if t), default=0.0))
        self.ready.put(task, polls=True)
        self.greenlet.switch()
        return request.done and request.time <= task.time

    def check(self, key: tuple, size: int, mine: Fingerprint, sites: bool) -> None:
        """Compare a rank's collective with those of the ranks that have called it before."""
        others = self.called.setdefault(key, [])
        others.append(mine)
        compare(others, sites)
        if len(others) == size:
            del self.called[key]

    def running(self, rank: int) -> Task:
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

    def _new_task(self, rank: int, main: Callable[[], Any], call: str, time: float) -> Task:
        task = Task(self, rank, call, time)
        task.greenlet = greenlet(partial(self._run_task, task, main), parent=self.greenlet)
        task.greenlet.gr_context = copy_context()
        return task

    def _run_task(self, task: Task, main: Callable[[], Any]) -> None:
        task.result = main()
        self.started.discard(task)
        self._complete(task, task.time)

    def _complete(self, request: Pending, time: float) -> None:
        """The request is done at that time: the task that waits for it is ready."""
        request.done, request.time, self.polls = True, time, 0
        task = request.waiter
        if task is not None:
            del self.blocked[task]
            if time > task.time:
                task.time = time
            self.ready.put(task)
            request.waiter = None

    def _join(self, first: MessageEnd, second: MessageEnd) -> None:
        send, receive = (second, first) if first.side == "source" else (first, second)
        assert isinstance(send, Send) and isinstance(receive, Receive)
        receive.error = _mismatch(send, receive)
        if receive.error is None:
            fill(receive.array, send.array)
        if send.done and not send.travels:  # it was eager, and has arrived
            self._complete(receive, max(send.arrives, receive.time))
            return
        send.partner = receive
        if not send.done:
            send.time = max(first.time, second.time)
            self._transfer(send)

    def _transfer(self, send: Send) -> None:
        send.travels = True
        if self.clock is None:
            self._deliver(send, send.time)
        else:
            self.wire.put(send)

    def _deliver(self, send: Send, end: float) -> None:
        """The message has arrived."""
        send.travels, send.arrives = False, end
        if not send.done:
            self._complete(send, end)
        # A sender that keeps its request must not keep the receiver's array alive.
        receive, send.partner = send.partner, None
        if receive is not None:
            self._complete(receive, max(end, receive.time))

    def _step(self, task: Task) -> None:
        self.current = task
        try:
            task.greenlet.switch()
        except BaseException as error:
            error.add_note(f"raised on simulated rank {task.rank} of {self.size}")
            raise

    def _check_finished(self) -> None:
        if self.blocked:
            blocked = [_blocked_call(task, request) for task, request in self.blocked.items()]
            raise DeadlockError(explain(self.size, blocked))
        left = [request for line in self.unmatched.values() for request in line]
        if left:
            raise UnmatchedError("\n".join(["all ranks returned, but", *map(_left_over, left)]))

    def _kill(self) -> None:
        self.closed = True
        for task in (*self.tasks, *self.started):
            if task.greenlet.dead:
                continue
            self.current = task
            with contextlib.suppress(Exception):  # a rank's clean-up must not hide the first error
                task.greenlet.throw(GreenletExit)


def _blocked_call(task: Task, request: Pending) -> BlockedCall:
    function, place = call_of(task.greenlet.gr_frame)
    assert isinstance(request, MessageEnd | Task)
    peer = request.peer if isinstance(request, MessageEnd) else None
    return BlockedCall(task.rank, task.call, request.call, peer, function, place)


def _left_over(request: MessageEnd) -> str:
    missing = "never got its message" if isinstance(request, Receive) else "was never received"
    return f"  rank {request.rank} {request.call} of {describe(request.array)} {missing}"


def _mismatch(send: Send, receive: Receive) -> MismatchError | None:
    if send.array.dtype == receive.array.dtype and send.array.size == receive.array.size:
        return None
    return MismatchError(
        f"rank {receive.rank} {receive.call} got {describe(send.array)} "
        f"from rank {send.rank} {send.call}, but `out` is {describe(receive.array)}: "
        "make `out` with the sender's dtype and number of elements"
    )
