"""Running a program where we are: on MPI's ranks under mpirun, else on simulated ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from .communicator import Communicator
from .guard import abort_on_error
from .mpi import mpi_world, world_from_env
from .simulated import simulate

T = TypeVar("T")


def launch(fn: Callable[[Communicator], T], ranks: int = 1) -> T:
    """`fn(comm)` on every rank that mpirun started; alone, on `ranks` simulated ranks.

    Returns this rank's result (rank 0's where the ranks are simulated). A rank that raises ends
    them all.
    """
    if world_from_env()[1] > 1:
        comm = mpi_world()
        with abort_on_error(comm):
            return fn(comm)
    return simulate(fn, ranks)[0]
