"""A world of one rank, like MPI_COMM_SELF: the default of layers that take a communicator."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from .communicator import Communicator, Request
from .errors import CommError
from .guard.fingerprint import Fingerprint


class CommSelf(Communicator):
    """Rank 0 of 1. Every collective is the identity and costs nothing."""

    rank, size, ranks = 0, 1, (0,)

    def time(self) -> float:
        return time.perf_counter()

    def _isend(self, array: Any, dest: int, tag: int, synchronous: bool) -> NoReturn:
        raise CommError("a message in a world of one rank: there is nobody else")

    def _irecv(self, out: Any, source: int, tag: int) -> NoReturn:
        raise CommError("a message in a world of one rank: there is nobody else")

    def _start(self, main: Callable[[], Any], call: str) -> Request:
        return CompletedRequest(main())

    def _check(self, mine: Fingerprint) -> None:
        return None

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return None if color is None else CommSelf()


class CompletedRequest(Request):
    """A request whose result is known from the start."""

    def __init__(self, result: Any):
        self.result = result

    def wait(self) -> Any:
        return self.result

    def is_completed(self) -> bool:
        return True
