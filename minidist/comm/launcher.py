"""`launch`: run a program on the ranks that mpirun started, or else on simulated ranks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from .communicator import Communicator
from .environment import is_launched, world_from_env
from .errors import MpiError
from .guard.abort import abort_on_error
from .mpi.world import mpi_world
from .simulated.world import simulate

T = TypeVar("T")


def launch(
    fn: Callable[[Communicator], T], ranks: int = 1, *, timeout: float | None = None,
    **simulation: Any,
) -> T:  # fmt: skip
    """`fn(comm)` on every rank that mpirun started; without mpirun, on `ranks` simulated ranks.

    `mpirun -n 1` starts one rank, whatever `ranks` says. `timeout`: as mpi_world's; simulated ranks
    need none, because a deadlock is found at once. `simulation`: further arguments of simulate(), a
    clock for example.

    Returns this rank's result (rank 0's if the ranks are simulated). A rank that raises ends all
    ranks. MpiError: mpi4py sees another number of ranks than mpirun started.
    """
    if not is_launched():
        return simulate(fn, ranks, **simulation)[0]
    comm, started = mpi_world(timeout), world_from_env()[1]
    if comm.size != started:
        raise MpiError(
            f"mpirun started {started} ranks, but mpi4py's MPI library sees {comm.size}: use the "
            f"mpirun beside {sys.executable}; 'minidist doctor' tells more"
        )
    with abort_on_error(comm):
        return fn(comm)
