"""Real ranks: the same communicator over mpi4py, one process a rank under mpirun."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from ...kernels import arrays as xp
from ..communicator import Communicator, Request, describe
from ..devices import fill, incoming, outgoing
from ..errors import MismatchError, MpiError
from ..guard.fingerprint import BYTES, Fingerprint, compare
from ..guard.guard import install_excepthook
from ..sites import here
from ..threads import one_blas_thread
from .waiting import Work, World

PART = 1 << 30  # bytes: a longer message goes in several, for a count of MPI 3 has 32 bits
LAUNCHERS = [  # what mpirun of MPICH and Intel, mpirun of Open MPI, and srun tell a rank
    ("PMI_RANK", "PMI_SIZE"),
    ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE"),
    ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"),
]


@cache
def mpi_world() -> Communicator:
    """This process's rank among all that mpirun started; alone, rank 0 of 1.

    With more than one rank: BLAS gets one thread, and an uncaught exception ends every rank.
    MINIDIST_DEBUG=1, MINIDIST_TIMEOUT and MINIDIST_CUDA_AWARE=1 are looked at now.
    """
    os.environ.setdefault("OMPI_MCA_osc", "^ucx")  # of Open MPI: it cannot, and says so each time
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        raise MpiError(f"mpi4py cannot be used ({error}): pip install 'minidist[mpi]'") from error
    # A duplicate: messages of other libraries on COMM_WORLD cannot meet ours.
    native = MPI.COMM_WORLD.Dup()
    comm = MpiCommunicator(native, World(native, _crowded(MPI)))
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
    """`native` is the mpi4py communicator underneath, `world` what this process's ones share."""

    def __init__(self, native: Any, world: World):
        self.native, self.world = native, world
        self.rank, self.size = native.Get_rank(), native.Get_size()
        self.ranks = tuple(native.Get_group().Translate_ranks(None, world.native.Get_group()))
        self.debug, self.cuda_aware = world.debug, world.cuda_aware
        self.open: set[MpiRequest] = set()

    def time(self) -> float:
        return time.perf_counter()

    def _isend(self, array: xp.ndarray, dest: int, tag: int, synchronous: bool) -> MpiRequest:
        buffer = outgoing(array, self.cuda_aware)
        post = self.native.Issend if synchronous else self.native.Isend
        call = self._named("ssend" if synchronous else "send", "dest", dest, tag)
        request = _in_parts(post, buffer, dest, tag)
        return MpiRequest(self, request, array, buffer, dest, call)

    def _irecv(self, out: xp.ndarray, source: int, tag: int) -> MpiRequest:
        buffer = incoming(out, self.cuda_aware)
        request = _in_parts(self.native.Irecv, buffer, source, tag)
        call = self._named("recv", "source", source, tag)
        return MpiReceive(self, request, out, buffer, source, call)

    def _named(self, verb: str, side: str, peer: int, tag: int) -> str:
        """`recv(source=1, tag=0) #16`; inside a collective, that one's name in front."""
        call = f"{verb}({side}={peer}, tag={tag})"
        if self.inside or not self.debug:
            return f"{self.inside}: {call}" if self.inside else call
        self.world.calls += 1
        call = f"{call} #{self.world.calls}"
        self.world.say(call, here())
        return call

    def _check(self, mine: Fingerprint) -> None:
        """Every rank's fingerprint to every other, by world ranks: so other groups meet too."""
        call = f"{mine.operation} #{mine.number}" + (f" '{mine.label}'" if mine.label else "")
        if not self.prefix:
            self.world.say(call, mine.site)
        aside, code, prints = self.world.aside, mine.encode(), [mine]
        others = [rank for rank in self.ranks if rank != self.ranks[self.rank]]
        arriving = [xp.empty(BYTES, xp.uint8) for _ in others]
        requests = [aside.Irecv(a, rank) for a, rank in zip(arriving, others)]
        requests += [aside.Isend(code, rank) for rank in others]
        for request, message in zip(requests, arriving):
            self.world.complete(request.Test, call, self.ranks)
            prints.append(Fingerprint.decode(message))
            if prints[-1].group != mine.group:
                compare(prints)
        for request in requests[len(others) :]:
            self.world.complete(request.Test, call, self.ranks)
        compare(prints, self.debug > 1)

    def _left(self) -> None:
        if not self.prefix:
            self.world.leave()

    def _start(self, main: Callable[[], Any], call: str) -> Work:
        return Work(self.world, main, call)

    def _split(self, color: int | None, key: int) -> Communicator | None:
        from mpi4py import MPI

        native = self.native.Split(MPI.UNDEFINED if color is None else color, key)
        return None if color is None else MpiCommunicator(native, self.world)

    def abort(self, code: int) -> None:
        self.native.Abort(code)


class MpiRequest(Request):
    """A send under way."""

    def __init__(
        self, comm: MpiCommunicator, request: Any, array: xp.ndarray, buffer: xp.ndarray,
        peer: int, call: str,
    ):  # fmt: skip
        self.comm, self.request, self.array, self.buffer = comm, request, array, buffer
        self.peer, self.call = peer, call
        # A request that the caller drops would free its buffer while MPI still reads from it.
        comm.open.add(self)

    def wait(self) -> xp.ndarray:
        if self in self.comm.open:
            self._complete(self._status())
        return self.array

    def is_completed(self) -> bool:
        self.comm.world.advance()
        return self not in self.comm.open or self._settle(self._status())

    def _complete(self, status: Any) -> None:
        world, whom = self.comm.world, (self.comm.ranks[self.peer],)
        world.complete(lambda: self._settle(status), self.call, whom)
        if not self.comm.inside:
            world.leave()

    def _settle(self, status: Any) -> bool:
        """Is it done? Once it is, or has failed, MPI does not hold the buffer any more."""
        try:
            done = self.request.Test(status)
        except BaseException:
            self.comm.open.discard(self)
            raise
        if done:
            self.comm.open.discard(self)
            self._finish(status)
        return done

    def _status(self) -> Any:
        return None

    def _finish(self, status: Any) -> None:
        pass


class MpiReceive(MpiRequest):
    """A receive under way."""

    def _status(self) -> Any:
        from mpi4py import MPI

        return MPI.Status()

    def _settle(self, status: Any) -> bool:
        from mpi4py import MPI

        try:
            return super()._settle(status)
        except MPI.Exception as error:
            if error.Get_error_class() != MPI.ERR_TRUNCATE:
                raise
            raise self._mismatch("more bytes than that") from error

    def _finish(self, status: Any) -> None:
        from mpi4py import MPI

        got = status.Get_count(MPI.BYTE) + getattr(self.request, "before", 0)
        if got != self.array.nbytes:
            raise self._mismatch(f"{got} bytes")
        if self.buffer is not self.array:
            fill(self.array, self.buffer)

    def _mismatch(self, got: str) -> MismatchError:
        return MismatchError(
            f"rank {self.comm.rank} {self.call}: `out` is {describe(self.array)}, but the message "
            f"has {got}: make `out` with the sender's dtype and number of elements"
        )


class Parts:
    """Requests for the parts of one message, in order; one that is shorter than PART is the last.

    `before`: bytes of those before the last.
    """

    def __init__(self, requests: list[Any]):
        self.requests, self.before = requests, 0

    def Test(self, status: Any) -> bool:
        while self.requests and self.requests[0].Test(status):
            self._next(status)
        return not self.requests

    def _next(self, status: Any) -> None:
        from mpi4py import MPI

        del self.requests[0]
        if status is None or not self.requests:
            return
        if status.Get_count(MPI.BYTE) == PART:
            self.before += PART
            return
        for request in self.requests:  # the message was shorter than what was made for it
            request.Cancel()
            request.Free()
        self.requests = []


def _in_parts(post: Callable[..., Any], buffer: xp.ndarray, peer: int, tag: int) -> Any:
    """The request of a message of any length, as bytes.

    As bytes MPI carries every dtype, float16 and bool too, and changes none.
    """
    from mpi4py import MPI

    flat = buffer.reshape(-1).view(xp.uint8)
    if flat.size < PART:
        return post([flat, MPI.BYTE], peer, tag)
    parts = (flat[i : i + PART] for i in range(0, flat.size + 1, PART))
    return Parts([post([part, MPI.BYTE], peer, tag) for part in parts])
