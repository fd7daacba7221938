"""A world of one rank, in which every collective is the identity: what a layer has by default."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NoReturn

from .communicator import Communicator, Request
from .errors import CommError
from .guard.fingerprint import Fingerprint


class Alone(Communicator):
    """Rank 0 of 1, in any world, at no cost."""

    rank, size, ranks = 0, 1, (0,)

    def time(self) -> float:
        return time.perf_counter()

    def _isend(self, array: Any, dest: int, tag: int, synchronous: bool) -> NoReturn:
        raise CommError("a message in a world of one rank: there is nobody else")

    def _irecv(self, out: Any, source: int, tag: int) -> NoReturn:
        raise CommError("a message in a world of one rank: there is nobody else")

    def _start(self, main: Callable[[], Any], call: str) -> Request:
        return _Done(main())

    def _check(self, mine: Fingerprint) -> None:
        return None

    def _split(self, color: int | None, key: int) -> Communicator | None:
        return None if color is None else Alone()


class _Done(Request):
    def __init__(self, result: Any):
        self.result = result

    def wait(self) -> Any:
        return self.result

    def is_completed(self) -> bool:
        return True
