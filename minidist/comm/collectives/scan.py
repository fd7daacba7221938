"""Scan: rank k gets the sum of the arrays of ranks 0 to k (an inclusive prefix sum).

    rank 0   a                a
    rank 1   b        -->     a+b
    rank 2   c                a+b+c
    rank 3   d                a+b+c+d

The algorithms: `chain` (n-1 rounds, one after the other), `doubling` (log2 n rounds), `native`.
"""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .auto import Algorithm, function_of
from .checks import check_algorithm
from .entry import by_host, nonblocking
from .native import in_place, mpi_op, native_call
from .reductions import check_op, combine_of, divide_if_mean


def chain(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Each rank waits for the sum of the ranks before it, adds its part and sends it on.

    n-1 rounds; (n-1)S bytes, at most S a rank. Order of summation: ranks 0, 1, 2, … .
    """
    if comm.rank > 0:
        combine(comm.recv(xp.empty_like(flat), comm.rank - 1, tags.SCAN), flat, out=flat)
    if comm.rank < comm.size - 1:
        comm.send(flat, comm.rank + 1, tags.SCAN)


def doubling(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Each round doubles the number of ranks in a rank's sum (Hillis & Steele 1986).

        distance 1    0 -> 1   1 -> 2   2 -> 3       rank 3 has 2+3
        distance 2    0 -> 2   1 -> 3                rank 3 has (0+1) + (2+3)

    log2(n) rounds, up to log2(n)·S bytes a rank. Order of summation: pairs, then pairs of pairs,
    counted back from the rank itself.
    """
    distance = 1
    while distance < comm.size:
        ahead, behind = comm.rank + distance, comm.rank - distance
        sending = None
        if ahead < comm.size:
            # A copy: `flat` changes below, before the send may be complete.
            sending = comm.isend(flat.copy(), ahead, tags.SCAN)
        if behind >= 0:
            combine(comm.recv(xp.empty_like(flat), behind, tags.SCAN), flat, out=flat)
        if sending is not None:
            sending.wait()
        distance *= 2


def native(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """MPI_Scan; the library chooses the order of summation."""
    native_call(comm, "Scan", in_place(), flat, op=mpi_op(combine, flat.dtype))


ALGORITHMS = {"chain": chain, "doubling": doubling, "native": native}


@by_host
def scan(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: Algorithm = "auto",
    label: str = "",
) -> xp.ndarray:  # fmt: skip
    """The elementwise `op` of the arrays of ranks 0 to this one.

    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} scan"
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, ALGORITHMS, array, op)
    with comm.collective("scan", array, label, reduction=op, algorithm=algorithm):
        work = array.copy(order="C")
        run = function_of("scan", ALGORITHMS, algorithm, comm.size, work.nbytes)
        run(comm, work.reshape(-1), comm.reducing(combine_of(op, array.dtype)))
    return divide_if_mean(work, op, comm.rank + 1)


iscan = nonblocking(scan)
