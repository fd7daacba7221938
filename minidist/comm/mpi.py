"""Real ranks: the same communicator over mpi4py, one process a rank under mpirun."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np

from .communicator import Communicator, Request, describe
from .errors import MismatchError, MpiError
from .guard import install_excepthook
from .threads import one_blas_thread

POLLS = 50  # of a crowded rank before it sleeps, which costs some 50 µs

LAUNCHERS = [  # what mpirun of MPICH and Intel, mpirun of Open MPI, and srun tell a rank
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
]


@cache
def mpi_world() -> Communicator:
    """This process's rank among all that mpirun started; alone, rank 0 of 1.

    With more than one rank: BLAS gets one thread, and an uncaught exception ends every rank.
    """
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MpiError(f"mpi4py cannot be used ({error}): pip install 'minidist[mpi]'") from error
    # A duplicate: messages of other libraries on COMM_WORLD cannot meet ours.
    comm = MpiCommunicator(MPI.COMM_WORLD.Dup(), _crowded(MPI))
    if comm.size > 1:
        one_blas_thread()
        install_excepthook(comm)
    return comm


def world_from_env(env: Mapping[str, str] = os.environ) -> tuple[int, int]:
    """(rank, size) by what the launcher left in the environment, without starting MPI.

    Outside a launcher (0, 1), also in a Slurm batch script, which is not yet a rank.
    """
    for rank, size in LAUNCHERS:
        if env.get(rank, "").isdigit() and env.get(size, "").isdigit():
            return int(env[rank]), int(env[size])
    return 0, 1


LOCAL = (
    "OMPI_COMM_WORLD_LOCAL_RANK", "MPI_LOCALRANKID", "MV2_COMM_WORLD_LOCAL_RANK", "SLURM_LOCALID",
)  # fmt: skip


def local_rank(env: Mapping[str, str] = os.environ) -> int:
    """This rank's number among those of its machine, by what the launcher says (else its rank)."""
    told = (env[name] for name in LOCAL if env.get(name, "").isdigit())
    return int(next(told, world_from_env(env)[0]))


def _crowded(mpi: Any) -> bool:
    """Whether this machine has more ranks than cores."""
    here = mpi.COMM_WORLD.Split_type(mpi.COMM_TYPE_SHARED)
    ranks = here.Get_size()
    here.Free()
    return ranks > (os.cpu_count() or 1)


class MpiCommunicator(Communicator):
    """`native` is the mpi4py communicator underneath.

    `crowded` ranks share cores: one that waits soon sleeps, so that another can compute.
    """

    def __init__(self, native: Any, crowded: bool = False):
        self.native, self.crowded = native, crowded
        self.rank, self.size = native.Get_rank(), native.Get_size()
        self.open: set[MpiRequest] = set()

    def _isend(self, array: np.ndarray, dest: int, tag: int) -> MpiRequest:
        buffer = np.ascontiguousarray(array)
        request = self.native.Isend(_message(buffer), dest, tag)
        return MpiRequest(self, request, array, buffer)

    def _irecv(self, out: np.ndarray, source: int, tag: int) -> MpiRequest:
        buffer = out if out.flags.c_contiguous else np.empty(out.shape, out.dtype)
        request = self.native.Irecv(_message(buffer), source, tag)
        return MpiReceive(self, request, out, buffer, f"recv(source={source}, tag={tag})")

    def _split(self, color: int | None, key: int) -> Communicator | None:
        from mpi4py import MPI

        native = self.native.Split(MPI.UNDEFINED if color is None else color, key)
        return None if color is None else MpiCommunicator(native, self.crowded)

    def abort(self, code: int) -> None:
        self.native.Abort(code)


class MpiRequest(Request):
    """A send under way."""

    def __init__(self, comm: MpiCommunicator, request: Any, array: np.ndarray, buffer: np.ndarray):
        self.comm, self.request, self.array, self.buffer = comm, request, array, buffer
        # A request that the caller drops would free its buffer while MPI still reads from it.
        comm.open.add(self)

    def wait(self) -> np.ndarray:
        if self in self.comm.open:
            self.comm.open.remove(self)
            self._finish()
        return self.array

    def _finish(self) -> None:
        self._complete(None)

    def _complete(self, status: Any) -> None:
        if not self.comm.crowded:
            self.request.Wait(status)  # polls without pause: the quickest where cores are free
            return
        polls = 0
        while not self.request.Test(status):
            polls += 1
            os.sched_yield() if polls < POLLS else time.sleep(1e-6)


class MpiReceive(MpiRequest):
    """A receive under way."""

    def __init__(
        self,
        comm: MpiCommunicator,
        request: Any,
        out: np.ndarray,
        buffer: np.ndarray,
        call: str,
    ):
        super().__init__(comm, request, out, buffer)
        self.call = call

    def _finish(self) -> None:
        from mpi4py import MPI

        status = MPI.Status()
        try:
            self._complete(status)
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_TRUNCATE:
                raise
            raise self._mismatch("more bytes than that") from error
        if status.Get_count(MPI.BYTE) != self.array.nbytes:
            raise self._mismatch(f"{status.Get_count(MPI.BYTE)} bytes")
        if self.buffer is not self.array:
            np.copyto(self.array, self.buffer)

    def _mismatch(self, got: str) -> MismatchError:
        return MismatchError(
            f"rank {self.comm.rank} {self.call}: `out` is {describe(self.array)}, but the message "
            f"has {got}: make `out` with the sender's dtype and number of elements"
        )


def _message(buffer: np.ndarray) -> list[Any]:
    # As bytes, MPI carries every dtype, float16 and bool too, and changes none.
    from mpi4py import MPI

    return [buffer.reshape(-1).view(np.uint8), MPI.BYTE]
