"""What a rank can say to another: send, receive, split; the same in every world."""

from __future__ import annotations

import operator
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .ledger import Ledger

MAX_TAG = 32_767  # all that the MPI standard promises; larger tags work on some libraries only


class Request(ABC):
    """A message under way; it owns its buffer until `wait` returns."""

    @abstractmethod
    def wait(self) -> np.ndarray:
        """Block until the buffer may be used again, and return it."""


def wait_all(requests: Iterable[Request]) -> None:
    """Block until all of them are done."""
    for request in requests:
        request.wait()


class Communicator(ABC):
    """`size` ranks that know each other by number; this one is `rank`.

    Tags from 32000 on belong to the collectives: a message of yours never meets one of theirs.
    """

    rank: int
    size: int
    ledger: Ledger | None = None
    native: Any = None  # the MPI library's own communicator, where there is one

    def isend(self, array: np.ndarray, dest: int, tag: int = 0) -> Request:
        """Start sending; `array` must not change before the request's `wait` returns."""
        dest, tag = self._checked("isend", "dest", array, dest, tag)
        if self.ledger is not None:
            self.ledger.count(self.rank, dest, tag, array.nbytes)
        return self._isend(array, dest, tag)

    def irecv(self, out: np.ndarray, source: int, tag: int = 0) -> Request:
        """Start receiving; `out` holds the message once the request's `wait` has returned it."""
        source, tag = self._checked("irecv", "source", out, source, tag)
        if not out.flags.writeable:
            raise ValueError(f"rank {self.rank} irecv: `out` is read-only, receive into a copy")
        return self._irecv(out, source, tag)

    def send(self, array: np.ndarray, dest: int, tag: int = 0) -> None:
        """Send, and wait until `array` may be changed again: as a rule, until it was received."""
        self.isend(array, dest, tag).wait()

    def recv(self, out: np.ndarray, source: int, tag: int = 0) -> np.ndarray:
        """Fill `out` with the next message from `source`, and return it."""
        return self.irecv(out, source, tag).wait()

    def sendrecv(
        self, array: np.ndarray, dest: int, out: np.ndarray, source: int, tag: int = 0
    ) -> np.ndarray:
        """Send and receive at once: a ring of these cannot deadlock, a ring of `send` does."""
        self._checked("sendrecv", "dest", array, dest, tag)
        receiving = self.irecv(out, source, tag)
        sending = self.isend(array, dest, tag)
        receiving.wait()
        sending.wait()
        return out

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """Every rank calls this; those with one `color` form a new communicator.

        Its ranks are ordered by `key`, then by old rank. A rank with color None gets None.
        """
        if color is not None and operator.index(color) < 0:
            raise ValueError(f"rank {self.rank} split(color={color}): use 0 or more, or None")
        return self._split(color, operator.index(key))

    def abort(self, code: int) -> None:
        """End every rank at once."""
        raise SystemExit(code)

    def _checked(
        self, verb: str, side: str, array: np.ndarray, peer: int, tag: int
    ) -> tuple[int, int]:
        where = f"rank {self.rank} {verb}"
        check_array(where, array)
        peer, tag = operator.index(peer), operator.index(tag)
        if not 0 <= peer < self.size:
            raise ValueError(f"{where}: {side}={peer}, but ranks are 0 to {self.size - 1}")
        if not 0 <= tag <= MAX_TAG:
            raise ValueError(f"{where}: tag={tag}, but tags are 0 to {MAX_TAG}")
        return peer, tag

    @abstractmethod
    def _isend(self, array: np.ndarray, dest: int, tag: int) -> Request: ...

    @abstractmethod
    def _irecv(self, out: np.ndarray, source: int, tag: int) -> Request: ...

    @abstractmethod
    def _split(self, color: int | None, key: int) -> Communicator | None: ...


def check_array(where: str, array: np.ndarray) -> None:
    """Raise unless `array` is a NumPy array whose memory is its value."""
    if not isinstance(array, np.ndarray):
        kind = type(array).__name__
        raise TypeError(f"{where}: needs a NumPy array, got {kind}: wrap it in np.asarray")
    if array.dtype.hasobject:
        raise TypeError(
            f"{where}: dtype {array.dtype} holds pointers, which mean nothing on another rank: "
            "convert it to a number's dtype"
        )


def describe(array: np.ndarray) -> str:
    """`float32 (3,) = 12 bytes`."""
    return f"{array.dtype} {array.shape} = {array.nbytes} bytes"
