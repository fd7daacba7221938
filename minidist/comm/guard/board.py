"""A notice board in memory that the ranks of one machine share: what each did last, and when."""

from __future__ import annotations

import os
import time
from typing import Any

import numpy as np

IN, AFTER, EXITED = 1, 2, 3
NOTE = np.dtype([("when", "f8"), ("state", "i4"), ("pid", "i4"), ("text", "S1008")])


class Board:
    """It is read also when its writer is stopped or dead: no message is needed.

    `notes[rank]` is a world rank's note; of ranks on other machines there is none.
    """

    def __init__(self, world: Any):
        """A collective call, over an mpi4py communicator: each rank's process is noted."""
        from mpi4py import MPI

        here = world.Split_type(MPI.COMM_TYPE_SHARED)
        self.window = MPI.Win.Allocate_shared(NOTE.itemsize, 1, comm=here)
        ranks = here.allgather(world.Get_rank())
        self.notes = {rank: self._note(place) for place, rank in enumerate(ranks)}
        self.mine = self.notes[world.Get_rank()]
        self.mine["pid"] = os.getpid()
        self.say("start-up (MINIDIST_DEBUG=1 tells more)")
        here.Barrier()

    def _note(self, place: int) -> np.ndarray:
        memory: Any = self.window.Shared_query(place)[0]
        return np.ndarray((), NOTE, memory)

    def say(self, text: str, state: int = IN) -> None:
        """Write what this rank is doing now."""
        self.mine["text"], self.mine["state"] = text.encode(), state
        self.mine["when"] = time.monotonic()

    def leave(self, state: int = AFTER) -> None:
        """What was written is over."""
        self.mine["state"], self.mine["when"] = state, time.monotonic()

    def has_exited(self, rank: int) -> bool:
        return rank in self.notes and int(self.notes[rank]["state"]) == EXITED

    def is_in(self, rank: int, call: str) -> bool:
        """Whether a rank is in that call."""
        if rank not in self.notes:
            return False
        note = self.notes[rank]
        return int(note["state"]) == IN and note["text"].item().decode().startswith(call + " ")

    def seen(self, rank: int) -> str:
        """`last seen 5.1 s ago in recv(source=1, tag=0) #16 at …`."""
        if rank not in self.notes:
            return "is on another machine, whose board cannot be read"
        note = self.notes[rank]
        text, ago = note["text"].item().decode(errors="replace"), time.monotonic() - note["when"]
        how = {IN: "in", AFTER: "after", EXITED: "before it exited, after"}[int(note["state"])]
        return f"last seen {ago:.1f} s ago {how} {text} (process {int(note['pid'])})"
