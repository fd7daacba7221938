"""Reduce: the root gets the sum of all ranks' arrays.

The algorithms, n ranks and S bytes: `linear` (the root receives n-1 arrays), `tree` (log2 n
rounds), `chain` (a pipeline of segments, for large arrays), `native`. Each is the broadcast of the
same name, backwards.
"""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, wait_all
from . import tags
from .auto import Algorithm, function_of
from .binomial import family
from .checks import check_algorithm, check_root
from .chunks import segments
from .entry import by_host, nonblocking
from .native import in_place, mpi_op, native_call
from .reductions import check_op, combine_of, divide_if_mean


def linear(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """The root receives every array and adds it to its own: n-1 rounds, (n-1)S bytes.

    Order of summation: root, root+1, root+2, … .
    """
    if comm.rank != root:
        comm.send(flat, root, tags.REDUCE)
        return
    theirs = xp.empty_like(flat)
    for source in [(root + i) % comm.size for i in range(1, comm.size)]:
        combine(flat, comm.recv(theirs, source, tags.REDUCE), out=flat)


def tree(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """Sums go up a binomial tree (binomial.py): log2(n) rounds, (n-1)S bytes, S a rank.

    Order of summation: a rank adds its children's sums to its own part, the smallest subtree
    first. `flat` is overwritten on the other ranks too.
    """
    parent, children = family(comm, root)
    theirs = xp.empty_like(flat)
    for child in reversed(children):
        combine(flat, comm.recv(theirs, child, tags.REDUCE), out=flat)
    if parent is not None:
        comm.send(flat, parent, tags.REDUCE)


def chain(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """From the last rank of a line to the root, a segment at a time; every rank adds its part.

    n - 2 + S/SEGMENT rounds of a segment; (n-1)S bytes, S a rank. Order of summation, counted
    from the root: 0 + (1 + (2 + …)), so the far end is added first.
    """
    position = (comm.rank - root) % comm.size
    before, after, sends = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size, []
    theirs = xp.empty_like(flat)
    for part, message in zip(segments(flat), segments(theirs)):
        if position < comm.size - 1:
            combine(part, comm.recv(message, after, tags.REDUCE), out=part)
        if position > 0:
            sends.append(comm.isend(part, before, tags.REDUCE))
    wait_all(sends)


def native(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int) -> None:
    """MPI_Reduce; the library chooses the order of summation."""
    mine, out = (in_place(), flat) if comm.rank == root else (flat, None)
    native_call(comm, "Reduce", mine, out, op=mpi_op(combine, flat.dtype), root=root)


ALGORITHMS = {"linear": linear, "tree": tree, "chain": chain, "native": native}


@by_host
def reduce(
    comm: Communicator, array: xp.ndarray, root: int = 0, op: str = "sum",
    algorithm: Algorithm = "auto", label: str = "",
) -> xp.ndarray | None:  # fmt: skip
    """The elementwise `op` of all ranks' arrays on the root; None on the other ranks.

    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} reduce"
    check_root(comm, where, root)
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, ALGORITHMS, array, op)
    with comm.collective("reduce", array, label, reduction=op, root=root, algorithm=algorithm):
        work = array.copy(order="C")
        run = function_of("reduce", ALGORITHMS, algorithm, comm.size, work.nbytes)
        run(comm, work.reshape(-1), comm.reducing(combine_of(op, array.dtype)), root)
    return divide_if_mean(work, op, comm.size) if comm.rank == root else None


ireduce = nonblocking(reduce)
