"""A board in memory that the ranks of one machine share: each rank's last call, and its time."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

IN, AFTER, EXITED = 1, 2, 3
NOTE = np.dtype([("when", "f8"), ("state", "i4"), ("pid", "i4"), ("text", "S1008")])


class Board:
    """`notes[rank]` is the note of a rank of the world; ranks on other machines have none.

    A rank reads another rank's note without a message, so it can even if the writer is stopped or
    dead.
    """

    def __init__(self, world: Any):
        """A collective call over an mpi4py communicator."""
        from mpi4py import MPI

        machine = world.Split_type(MPI.COMM_TYPE_SHARED)
        self.window = MPI.Win.Allocate_shared(NOTE.itemsize, 1, comm=machine)
        ranks = machine.allgather(world.Get_rank())
        self.notes = {rank: self._memory(place) for place, rank in enumerate(ranks)}
        self.mine = self.notes[world.Get_rank()]
        self.mine["pid"] = os.getpid()
        self.note("start-up (MINIDIST_DEBUG=1 tells more)")
        machine.Barrier()

    def _memory(self, place: int) -> np.ndarray:
        memory: Any = self.window.Shared_query(place)[0]
        return np.ndarray((), NOTE, memory)

    def note(self, text: str, state: int = IN) -> None:
        """Write what this rank does now."""
        self.mine["text"], self.mine["state"] = text.encode(), state
        self.mine["when"] = time.monotonic()

    def note_end(self, state: int = AFTER) -> None:
        """Write that the noted call has ended."""
        self.mine["state"], self.mine["when"] = state, time.monotonic()

    def has_exited(self, rank: int) -> bool:
        return rank in self.notes and int(self.notes[rank]["state"]) == EXITED

    def is_in(self, rank: int, call: str) -> bool:
        """Whether that rank is inside that call now."""
        if rank not in self.notes:
            return False
        note = self.notes[rank]
        return int(note["state"]) == IN and note["text"].item().decode().startswith(call + " ")

    def last_seen(self, rank: int) -> str:
        """`last seen 5.1 s ago in recv(source=1, tag=0) #16 at …`."""
        if rank not in self.notes:
            return "is on another machine, whose board cannot be read"
        note = self.notes[rank]
        text, ago = note["text"].item().decode(errors="replace"), time.monotonic() - note["when"]
        how = {IN: "in", AFTER: "after", EXITED: "before it exited, after"}[int(note["state"])]
        return f"last seen {ago:.1f} s ago {how} {text} (process {int(note['pid'])})"
