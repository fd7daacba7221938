"""Messages over MPI: `hand_to_mpi` gives a buffer to the library, MpiRequest waits for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from ...kernels import arrays as xp
from ..buffers import fill
from ..communicator import Communicator, Request, describe
from ..errors import MismatchError
from .waiting import Process

PART = 1 << 30  # bytes: a longer message goes in several parts, because MPI 3 counts in 32 bits
EAGER = 1 << 13  # bytes: MPI copies a shorter message when it is sent, and its sender does not wait


@cache
def library() -> Any:
    """mpi4py's module MPI. To import it starts MPI, so that is left to the first message."""
    from mpi4py import MPI

    return MPI


def hand_to_mpi(post: Callable[..., Any], buffer: xp.ndarray, peer: int, tag: int = 0) -> Any:
    """Start one message of any length; every send and receive of minidist comes through here.

    `post` is Isend, Issend or Irecv of an mpi4py communicator. The message goes as bytes: so MPI
    carries every dtype, float16 and bool too, and changes none. Returns an mpi4py request, or one
    of Parts.
    """
    flat, kind = buffer.reshape(-1).view(xp.uint8), library().BYTE
    if flat.size < PART:
        return post([flat, kind], peer, tag)
    parts = (flat[i : i + PART] for i in range(0, flat.size + 1, PART))
    return Parts([post([part, kind], peer, tag) for part in parts])


class Parts:
    """Requests for the parts of one long message, in order.

    A part shorter than PART is the last, so the receiver need not know the length. `before` counts
    the bytes before the last part.
    """

    def __init__(self, requests: list[Any]):
        self.requests, self.before = requests, 0

    def Test(self, status: Any = None) -> bool:
        while self.requests and self.requests[0].Test(status):
            self._next(status)
        return not self.requests

    def _next(self, status: Any) -> None:
        del self.requests[0]
        if status is None or not self.requests:
            return
        if status.Get_count(library().BYTE) == PART:
            self.before += PART
            return
        for request in self.requests:  # the message was shorter than the receive buffer
            request.Cancel()
            request.Free()
        self.requests = []


class MpiRequest(Request):
    """A send that has started. `buffer` is the memory that MPI reads, or fills for a receive."""

    def __init__(
        self, comm: Communicator, process: Process, request: Any, array: xp.ndarray,
        buffer: xp.ndarray, peer: int, call: str,
    ):  # fmt: skip
        self.comm, self.process, self.request = comm, process, request
        self.array, self.buffer, self.peer, self.call = array, buffer, peer, call
        # A request that the caller drops would free its buffer while MPI still reads from it.
        process.open.add(self)

    def wait(self) -> xp.ndarray:
        if self in self.process.open:
            self._complete(self._status())
        return self.array

    def is_completed(self) -> bool:
        self.process.progress()
        return self not in self.process.open or self._test(self._status())

    def _complete(self, status: Any) -> None:
        peers: Sequence[int] = (self.comm.ranks[self.peer],)
        long = self.array.nbytes > EAGER
        self.process.wait_until(lambda: self._test(status), self.call, peers, long)
        if not self.comm.inside:
            self.process.note_end()

    def _test(self, status: Any) -> bool:
        """Whether it is done. Once it is, or has failed, MPI no longer uses the buffer."""
        try:
            done = self.request.Test(status)
        except BaseException:
            self.process.open.discard(self)
            raise
        if done:
            self.process.open.discard(self)
            self._finish(status)
        return done

    def _status(self) -> Any:
        return None

    def _finish(self, status: Any) -> None:
        pass


class MpiReceive(MpiRequest):
    """A receive that has started; it also checks the number of bytes that came."""

    def _status(self) -> Any:
        return library().Status()

    def _test(self, status: Any) -> bool:
        try:
            return super()._test(status)
        except library().Exception as error:
            if error.Get_error_class() != library().ERR_TRUNCATE:
                raise
            raise self._mismatch("more bytes than that") from error

    def _finish(self, status: Any) -> None:
        if self.array.nbytes > EAGER:
            self.process.ring(self.comm.ranks[self.peer])  # the sender may wait for this receive
        got = status.Get_count(library().BYTE) + getattr(self.request, "before", 0)
        if got != self.array.nbytes:
            raise self._mismatch(f"{got} bytes")
        if self.buffer is not self.array:
            fill(self.array, self.buffer)

    def _mismatch(self, got: str) -> MismatchError:
        return MismatchError(
            f"rank {self.comm.rank} {self.call}: `out` is {describe(self.array)}, but the message "
            f"has {got}: make `out` with the sender's dtype and number of elements"
        )
