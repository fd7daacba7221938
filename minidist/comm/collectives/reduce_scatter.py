"""Reduce-scatter: every rank gives an array of n chunks, rank k gets the sum of all chunks k.

    rank 0   a0 a1 a2 a3                a0+b0+c0+d0
    rank 1   b0 b1 b2 b3      -->       a1+b1+c1+d1
    rank 2   c0 c1 c2 c3                a2+b2+c2+d2
    rank 3   d0 d1 d2 d3                a3+b3+c3+d3

The algorithms: `pairwise` (n-1 direct exchanges), `ordered` (the same messages, summed in the order
of ranks), ring (ring.py), `halving` (log2 n rounds), `native`. It is the first half of an
all-reduce by ring or by Rabenseifner, and ZeRO's way to sum gradients.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .auto import Algorithm, function_of
from .checks import check_algorithm, check_rows
from .chunks import Bounds, chunk, pack, row_bounds
from .entry import by_host, nonblocking
from .native import mpi_op, native_call
from .recursive import add_extra_ranks, chunks_of_participants, halve, largest_power_of_two
from .reductions import check_op, combine_of, divide_if_mean
from .ring import neighbours, ring_reduce_scatter


def pairwise(comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc) -> None:
    """In round s every rank sends the rank s ahead its chunk, and adds one from s behind.

        round 1    0 -> 1 -> 2 -> 3 -> 0
        round 2    0 -> 2 -> 0    1 -> 3 -> 1
        round 3    0 -> 3 -> 2 -> 1 -> 0

    n-1 rounds, (n-1)/n·S bytes a rank. Order of summation: rank, rank-1, rank-2, … . No other chunk
    of `flat` changes.
    """
    mine = chunk(flat, bounds, comm.rank)
    theirs = xp.empty_like(mine)
    for step in range(1, comm.size):
        ahead, behind = neighbours(comm, step)
        comm.sendrecv(chunk(flat, bounds, ahead), ahead, theirs, behind, tags.REDUCE_SCATTER)
        combine(mine, theirs, out=mine)


def ordered(comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc) -> None:
    """Pairwise exchange that keeps all n parts and sums them in the order of ranks at the end.

    So the sum of an element does not depend on the chunk it lies in. n-1 rounds, (n-1)/n·S bytes a
    rank, memory for n chunks.
    """
    mine = chunk(flat, bounds, comm.rank)
    parts = xp.empty_like(flat, shape=(comm.size, mine.size))  # (n, chunk): part k is rank k's
    parts[comm.rank] = mine
    for step in range(1, comm.size):
        ahead, behind = neighbours(comm, step)
        outgoing = chunk(flat, bounds, ahead)
        comm.sendrecv(outgoing, ahead, parts[behind], behind, tags.REDUCE_SCATTER)
    for part in parts[1:]:
        combine(parts[0], part, out=parts[0])
    mine[...] = parts[0]


def halving(comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc) -> None:
    """Recursive halving (recursive.py); an extra rank gets its finished chunk at the end.

    log2(n) rounds, (n-1)/n·S bytes a rank if n is a power of two. Order of summation: distant
    partners first. The other chunks of `flat` are overwritten.
    """
    p, rank = largest_power_of_two(comm.size), comm.rank
    mine = chunk(flat, bounds, rank)
    if not add_extra_ranks(comm, flat, combine):
        comm.recv(mine, rank - p, tags.DOUBLING)
        return
    chunks = chunks_of_participants(comm.size)
    halve(comm, flat, bounds, chunks, combine)
    for extra in chunks[rank][1:]:
        comm.send(pack(flat, bounds, [extra]), extra, tags.DOUBLING)


def native(comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc) -> None:
    """MPI_Reduce_scatter; the library chooses the order of summation."""
    mine = xp.empty_like(chunk(flat, bounds, comm.rank))
    counts, op = [b - a for a, b in bounds], mpi_op(combine, flat.dtype)
    native_call(comm, "Reduce_scatter", flat, mine, counts, op=op)
    chunk(flat, bounds, comm.rank)[...] = mine


ALGORITHMS = {
    "ring": ring_reduce_scatter, "halving": halving, "pairwise": pairwise, "ordered": ordered,
    "native": native,
}  # fmt: skip


@by_host
def reduce_scatter(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: Algorithm = "auto",
    counts: Sequence[int] | None = None, label: str = "",
) -> xp.ndarray:  # fmt: skip
    """This rank's rows of the elementwise `op` of all ranks' arrays, which have one shape.

    Rank k gets counts[k] rows; by default the numbers of rows differ by one at most.
    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} reduce_scatter"
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, ALGORITHMS, array, op)
    check_rows(where, array)
    rows, bounds = row_bounds(comm, where, array.shape, counts)
    given = counts and list(counts)
    with comm.collective(
        "reduce_scatter", array, label, reduction=op, counts=given, algorithm=algorithm
    ):
        work = array.copy(order="C")  # (rows, …): the algorithms overwrite it
        if comm.size > 1:
            run = function_of("reduce_scatter", ALGORITHMS, algorithm, comm.size, work.nbytes)
            run(comm, work.reshape(-1), bounds, comm.reducing(combine_of(op, array.dtype)))
    mine = work[slice(*rows[comm.rank])].copy()  # (counts[rank], …)
    return divide_if_mean(mine, op, comm.size)


ireduce_scatter = nonblocking(reduce_scatter)
