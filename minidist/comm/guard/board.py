"""A board in memory that the ranks of one machine share: each rank's last call, and its wait.

With MINIDIST_DEBUG a rank notes every call. Without it, a rank notes only a wait that is long
(mpi/waiting.py), so a short wait costs nothing. A rank that has noted no wait counts as running.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

IN, AFTER, EXITED = 1, 2, 3
PEERS = 8  # number of ranks that a note can hold; a rank that waits for more notes ANY
ANY = -1
NOTE = np.dtype(
    [("when", "f8"), ("state", "i4"), ("pid", "i4"), ("text", "S976"), ("waiting", "i4"),
     ("peers", "i4", PEERS), ("bell", "u4")]
)  # fmt: skip
STOPPED = "TtZX"  # states of a process in /proc: stopped, traced, dead


class Board:
    """`notes[rank]` is the note of a rank of the world; ranks on other machines have none.

    A rank reads another rank's note without a message, so it can even if the writer is stopped or
    dead.
    """

    sees_processes = True

    def __init__(self, world: Any):
        """A collective call over an mpi4py communicator."""
        from mpi4py import MPI

        machine = world.Split_type(MPI.COMM_TYPE_SHARED)
        self.window = MPI.Win.Allocate_shared(NOTE.itemsize, 1, comm=machine)
        ranks = machine.allgather(world.Get_rank())
        self.notes = {rank: self._memory(place) for place, rank in enumerate(ranks)}
        self.mine = self.notes[world.Get_rank()]
        self.mine["pid"] = os.getpid()
        self.mine["waiting"] = self.mine["bell"] = 0
        self.note("start-up (MINIDIST_DEBUG=1 reports more)", AFTER)
        machine.Barrier()
        # Without /proc (macOS), or if each rank has its own container, their states are unknown.
        self.sees_processes = all(_stat(int(note["pid"])).exists() for note in self.notes.values())

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

    def note_wait(self, peers: Sequence[int]) -> None:
        """Note that this rank waits for these ranks and does nothing else."""
        few = peers if len(peers) <= PEERS else [ANY]
        self.mine["peers"][: len(few)] = few
        self.mine["waiting"] = len(few)

    def end_wait(self) -> None:
        self.mine["waiting"] = 0

    def bells(self) -> dict[int, int]:
        """The address of each rank's bell (mpi/bell.py), a word of 32 bits."""
        return {rank: note["bell"].ctypes.data for rank, note in self.notes.items()}

    def has_exited(self, rank: int) -> bool:
        return rank in self.notes and int(self.notes[rank]["state"]) == EXITED

    def waits_for(self, rank: int) -> list[int]:
        """The ranks that a rank waits for; an empty list if it runs or cannot be seen."""
        if rank not in self.notes:
            return []
        note = self.notes[rank]
        peers = note["peers"][: int(note["waiting"])].tolist()
        return [peer for peer in (sorted(self.notes) if ANY in peers else peers) if peer != rank]

    def runs(self, rank: int) -> bool:
        """Whether a rank computes, compiles, reads or writes: it is alive and does not wait.

        A rank on another machine cannot be seen, so it does not count as running.
        """
        if rank not in self.notes or self.waits_for(rank) or self.has_exited(rank):
            return False
        return not (self.sees_processes and _is_stopped(int(self.notes[rank]["pid"])))

    def any_runs(self, peers: Sequence[int]) -> bool:
        """Whether one of `peers` runs, or one of the ranks that they wait for, and so on."""
        seen: set[int] = set()
        todo = list(peers)
        while todo:
            rank = todo.pop()
            if rank in seen:
                continue
            if self.runs(rank):
                return True
            seen.add(rank)
            todo += self.waits_for(rank)
        return False

    def is_in(self, rank: int, call: str) -> bool:
        """Whether that rank is inside that call now."""
        if rank not in self.notes:
            return False
        note = self.notes[rank]
        return int(note["state"]) == IN and note["text"].item().decode().startswith(call + " ")

    def last_seen(self, rank: int) -> str:
        """`last seen 5.1 s ago in recv(source=1, tag=0) #16 at …`."""
        if rank not in self.notes:
            return "is on another machine, whose board cannot be read: check the network"
        note = self.notes[rank]
        text, ago = note["text"].item().decode(errors="replace"), time.monotonic() - note["when"]
        how = {IN: "in", AFTER: "after", EXITED: "before it exited, after"}[int(note["state"])]
        seen = f"last seen {ago:.1f} s ago {how} {text} (process {int(note['pid'])})"
        if self.runs(rank):
            return f"{seen}; it runs: it computes, compiles, reads or writes"
        waits = ", ".join(map(str, self.waits_for(rank)))
        return f"{seen}; it waits for rank {waits}" if waits else seen


def _stat(pid: int) -> Path:
    return Path(f"/proc/{pid}/stat")


def _is_stopped(pid: int) -> bool:
    """Whether a process is stopped or gone."""
    try:
        state = _stat(pid).read_text().rsplit(") ", 1)[1][0]
    except (OSError, IndexError):
        return True
    return state in STOPPED
