"""Real ranks: the communicator over mpi4py, one process a rank under mpirun."""

from __future__ import annotations

import faulthandler
import os
import time
from collections.abc import Callable
from functools import cache
from typing import Any

from ...kernels import arrays as xp
from ...kernels import blas
from ..buffers import receive_buffer, send_buffer
from ..call_site import call_site
from ..communicator import Communicator
from ..environment import check_seconds
from ..errors import MpiError
from ..guard.abort import install_excepthook
from ..guard.fingerprint import BYTES, Fingerprint, compare
from .messages import MpiReceive, MpiRequest, hand_to_mpi
from .waiting import Process, Work

ABORT_SECONDS = 5.0  # seconds that the launcher gets to end an aborting process


def mpi_world(timeout: float | None = None) -> Communicator:
    """This process's rank among all that mpirun started; without mpirun, rank 0 of 1.

    With more than one rank, the threads of BLAS are set now (kernels/blas.py: to one), and an
    uncaught exception ends every rank.
    `timeout`: seconds that a wait may last if no rank can end it, instead of MINIDIST_TIMEOUT
    (default 600). MINIDIST_DEBUG=1, MINIDIST_TIMEOUT, MINIDIST_NOTICE and MINIDIST_CUDA_AWARE=1 are
    read at the first call.
    """
    comm = _world()
    if timeout is not None:
        comm.process.deadline = check_seconds("timeout", timeout)
    return comm


# One for the process, because MPI may be initialised only once in a process and every rank must
# duplicate COMM_WORLD together: a second call on one rank alone would hang. Nothing reads this
# cache but mpi_world itself: programs pass the communicator on.
@cache
def _world() -> MpiCommunicator:
    # Open MPI would try its one-sided component ucx, fail, and print that at every start.
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MpiError(f"mpi4py cannot be used ({error}): pip install 'minidist[mpi]'") from error
    # A duplicate: messages of other libraries on COMM_WORLD cannot meet ours.
    native = MPI.COMM_WORLD.Dup()
    comm = MpiCommunicator(native, Process(native, _is_crowded(MPI)))
    if comm.size > 1:
        blas.settle()
        install_excepthook(comm)
    return comm


def _is_crowded(mpi: Any) -> bool:
    """Whether this machine has more ranks than cores."""
    machine = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    ranks = machine.Get_size()
    machine.Free()
    return ranks > (os.cpu_count() or 1)


class MpiCommunicator(Communicator):
    """`native` is the mpi4py communicator underneath; `process` is shared by all of this process.

    Every send and receive goes to the library in `hand_to_mpi` (messages.py). Algorithms called
    "native" use `native` directly.
    """

    def __init__(self, native: Any, process: Process):
        self.native, self.process = native, process
        self.rank, self.size = native.Get_rank(), native.Get_size()
        world = process.native.Get_group()
        self.ranks = tuple(native.Get_group().Translate_ranks(None, world))
        self.debug, self.cuda_aware = process.debug, process.cuda_aware

    def time(self) -> float:
        return time.perf_counter()

    def _isend(self, array: xp.ndarray, dest: int, tag: int, synchronous: bool) -> MpiRequest:
        buffer = send_buffer(array, self.cuda_aware)
        post = self.native.Issend if synchronous else self.native.Isend
        call = self._note("ssend" if synchronous else "send", "dest", dest, tag)
        request = hand_to_mpi(post, buffer, dest, tag)
        self.process.ring(self.ranks[dest])
        return MpiRequest(self, self.process, request, array, buffer, dest, call)

    def _irecv(self, out: xp.ndarray, source: int, tag: int) -> MpiRequest:
        buffer = receive_buffer(out, self.cuda_aware)
        request = hand_to_mpi(self.native.Irecv, buffer, source, tag)
        call = self._note("recv", "source", source, tag)
        return MpiReceive(self, self.process, request, out, buffer, source, call)

    def _note(self, verb: str, side: str, peer: int, tag: int) -> str:
        """`recv(source=1, tag=0) #16`, noted on the board; inside a collective, its name first."""
        call = f"{verb}({side}={peer}, tag={tag})"
        if self.inside or not self.debug:
            return f"{self.inside}: {call}" if self.inside else call
        self.process.calls += 1
        call = f"{call} #{self.process.calls}"
        self.process.note(call, call_site())
        return call

    def _check(self, mine: Fingerprint) -> None:
        """Exchange fingerprints with every rank of the group, addressed by its number in the world.

        So the fingerprints meet even if another rank makes a call on another group.
        """
        call = f"{mine.operation} #{mine.number}" + (f" '{mine.label}'" if mine.label else "")
        if not self.prefix:
            self.process.note(call, mine.site)
        world, code, prints = self.process.fingerprints, mine.encode(), [mine]
        others = [rank for rank in self.ranks if rank != self.ranks[self.rank]]
        buffers = [xp.empty(BYTES, xp.uint8) for _ in others]
        receives = [hand_to_mpi(world.Irecv, b, rank) for b, rank in zip(buffers, others)]
        sends = [hand_to_mpi(world.Isend, code, rank) for rank in others]
        for request, buffer in zip(receives, buffers):
            self.process.wait_until(request.Test, call, self.ranks)
            prints.append(Fingerprint.decode(buffer))
            if prints[-1].group != mine.group:
                compare(prints)
        for request in sends:
            self.process.wait_until(request.Test, call, self.ranks)
        compare(prints, self.debug > 1)

    def _collective_ended(self) -> None:
        if not self.prefix:
            self.process.note_end()

    def _start(self, main: Callable[[], Any], call: str) -> Work:
        return Work(self.process, main, call)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        from mpi4py import MPI

        # Split blocks inside the library, where an endless wait could not be detected. So all ranks
        # first meet in a wait that is watched.
        met = self.native.Ibarrier()
        self.process.wait_until(met.Test, "split", self.ranks)
        native = self.native.Split(MPI.UNDEFINED if color is None else color, key)
        return None if color is None else MpiCommunicator(native, self.process)

    def abort(self, code: int) -> None:
        # Abort asks the launcher. If the network to it is broken, Abort never returns, and it
        # keeps Python's lock, so only a thread without Python can end the process.
        with open(os.devnull, "w") as nowhere:
            faulthandler.dump_traceback_later(ABORT_SECONDS, exit=True, file=nowhere)
            self.native.Abort(code)
