"""`launch`: run a program on the ranks that mpirun started, or else on simulated ranks."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, TypeVar

from .communicator import Communicator
from .environment import world_from_env
from .errors import MpiError
from .guard.abort import abort_on_error
from .mpi.world import mpi_world
from .simulated.world import simulate

T = TypeVar("T")


def launch(fn: Callable[[Communicator], T], ranks: int = 1, **simulation: Any) -> T:
    """`fn(comm)` on every rank that mpirun started; without mpirun, on `ranks` simulated ranks.

    `simulation`: further arguments of simulate(), a clock for example.

    Returns this rank's result (rank 0's if the ranks are simulated). A rank that raises ends all
    ranks. MpiError: mpi4py sees another number of ranks than mpirun started.
    """
    started = world_from_env()[1]
    if started <= 1:
        return simulate(fn, ranks, **simulation)[0]
    comm = mpi_world()
    if comm.size != started:
        raise MpiError(
            f"mpirun started {started} ranks, but mpi4py's MPI library sees {comm.size}: use the "
            f"mpirun beside {sys.executable}; 'minidist doctor' tells more"
        )
    with abort_on_error(comm):
        return fn(comm)
