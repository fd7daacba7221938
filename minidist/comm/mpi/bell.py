"""Bells: a rank that waits sleeps until another rank of its machine rings, instead of polling.

Each rank has one word in the memory that the ranks of a machine share (guard/board.py). A rank that
has sent a message, or has taken one, writes a new number into the other rank's word and wakes that
rank. Before it looks for messages, a rank reads its own word; to sleep, it gives that number to the
system, which lets it sleep only if the word still has it. So no ring is lost between look and
sleep.

Linux calls this a futex. Elsewhere a rank sleeps for a short time and looks again (waiting.py).
"""

from __future__ import annotations

import ctypes
import errno
import platform
import sys
from typing import Any

from ..guard.board import Board

FUTEX = {"x86_64": 202, "aarch64": 98, "riscv64": 98, "ppc64le": 221, "s390x": 238}
WAIT, WAKE = ctypes.c_long(0), ctypes.c_long(1)
ONE = ctypes.c_uint32(1)  # a word has one sleeper, the rank that it belongs to
LIMIT = 1 << 31  # numbers are below it


class Duration(ctypes.Structure):
    """C's timespec."""

    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class Bells:
    """The bells of this machine's ranks; `futex(word, operation, number, duration)` is Linux's."""

    def __init__(self, board: Board, rank: int, size: int, futex: Any):
        words = {r: ctypes.c_uint32.from_address(at) for r, at in board.bells().items()}
        self.mine, self.place = words[rank], ctypes.byref(words[rank])
        self.others = {r: (w, ctypes.byref(w)) for r, w in words.items() if r != rank}
        self.futex, self.duration = futex, Duration()
        # No two ranks ever write the same number, so a word changes with each ring.
        self.number, self.size = rank, size

    def heard(self) -> int:
        """The number in this rank's word; to be read before this rank looks for messages."""
        return self.mine.value

    def sleep(self, heard: int, seconds: float) -> None:
        """Sleep until another rank rings, at most so long; not at all if one has rung since."""
        self.duration.nanoseconds = int(1e9 * seconds)
        self.futex(self.place, WAIT, ctypes.c_uint32(heard), ctypes.byref(self.duration))

    def ring(self, *ranks: int) -> None:
        """Wake those of these ranks (of the world) that are others of this machine."""
        for rank in ranks:
            if rank in self.others:
                word, place = self.others[rank]
                self.number = word.value = (self.number + self.size) % LIMIT
                self.futex(place, WAKE, ONE, None)


def find_bells(board: Board, rank: int, size: int) -> Bells | None:
    """The bells, if this system has futexes."""
    number = FUTEX.get(platform.machine()) if sys.platform == "linux" else None
    if number is None:
        return None
    syscall = ctypes.CDLL(None, use_errno=True).syscall
    code = ctypes.c_long(number)
    bells = Bells(board, rank, size, lambda *arguments: syscall(code, *arguments))
    # To sleep on a number that the word does not have must fail at once, for this very reason.
    bells.sleep(LIMIT, 1e-3)
    return bells if ctypes.get_errno() == errno.EAGAIN else None
