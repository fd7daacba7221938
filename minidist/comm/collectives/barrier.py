"""Barrier: no rank returns before every rank has called it."""

from __future__ import annotations

import numpy as np

from ..communicator import Communicator
from . import tags
from .auto import Algorithm, function_of
from .checks import check_algorithm
from .entry import nonblocking
from .native import native_call
from .ring import neighbours


def dissemination(comm: Communicator) -> None:
    """In round k every rank tells the rank 2^k ahead that it has come, by an empty message.

        4 ranks    round 1: 0 -> 1 -> 2 -> 3 -> 0     a rank knows of itself and 1 before it
                   round 2: 0 -> 2 -> 0, 1 -> 3 -> 1  … and of the 2 that the sender knew of

    log2(n) rounds, rounded up; no bytes. (Hensgen, Finkel & Manber 1988.)
    """
    nothing = np.empty(0, np.uint8)
    distance = 1
    while distance < comm.size:
        ahead, behind = neighbours(comm, distance)
        comm.sendrecv(nothing, ahead, nothing, behind, tags.BARRIER)
        distance *= 2


def native(comm: Communicator) -> None:
    """MPI_Barrier."""
    native_call(comm, "Barrier")


ALGORITHMS = {"dissemination": dissemination, "native": native}


def barrier(comm: Communicator, algorithm: Algorithm = "auto", label: str = "") -> None:
    """Return only when every rank has called it.

    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    check_algorithm(comm, f"rank {comm.rank} barrier", algorithm, ALGORITHMS)
    with comm.collective("barrier", label=label, algorithm=algorithm):
        function_of("barrier", ALGORITHMS, algorithm, comm.size, 0)(comm)


ibarrier = nonblocking(barrier)
