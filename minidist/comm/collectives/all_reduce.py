"""All-reduce: every rank gives an array, every rank gets their sum.

The algorithms, from the simplest to the fastest; n ranks, arrays of S bytes, p = n a power of two:

    name          function              rounds         a rank sends       for
    naive         naive                 n-1 + log2 n   S (rank 0: more)   reading first
    tree          tree                  2 log2 n       up to S log2 n     two trees, nothing new
    ring          ring                  2(n-1)         2(n-1)/n S         large arrays
    doubling      recursive_doubling    log2 n         S log2 n           small arrays
    rabenseifner  rabenseifner          2 log2 n       2(n-1)/n S         many ranks
    ordered       ordered               2(n-1)         2(n-1)/n S         sums in the order of ranks
    native        native                the library's  the library's      comparison

`all_reduce` at the end checks the arguments and runs one of them. If it is called with "auto", the
table in auto.py decides.
"""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from ..shards import shard_bounds
from . import tags
from .auto import Algorithm, function_of
from .broadcast import tree as tree_broadcast
from .checks import check_algorithm
from .entry import by_host, nonblocking
from .native import in_place, mpi_op, native_call
from .recursive import add_extra_ranks, double, halve, largest_power_of_two, send_to_extra_rank
from .reduce import tree as tree_reduce
from .reduce_scatter import ordered as ordered_reduce_scatter
from .reductions import check_op, combine_of, divide_if_mean
from .ring import ring_all_gather, ring_reduce_scatter


def naive(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Rank 0 receives every array, adds it to its own, and broadcasts the sum.

        1 --> 0        0 --> 1
        2 --> 0        0 --> 2      Rank 0 receives (n-1)S bytes; the others wait for it.
        3 --> 0        0 --> 3

    n-1 rounds and a tree broadcast; all ranks send 2(n-1)S bytes. Order of summation: ranks
    0, 1, 2, … from the left.
    """
    if comm.rank == 0:
        theirs = xp.empty_like(flat)
        for source in range(1, comm.size):
            combine(flat, comm.recv(theirs, source, tags.GATHER), out=flat)
    else:
        comm.send(flat, 0, tags.GATHER)
    tree_broadcast(comm, flat)


def tree(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Reduce to rank 0 along a binomial tree, then broadcast along the same tree.

        1 --> 0   3 --> 2        round 1: pairs
              2 --> 0            round 2: pairs of pairs; rank 0 has the sum
              0 --> 2            and back again
        0 --> 1   2 --> 3

    2·log2(n) rounds; all ranks send 2(n-1)S bytes, rank 0 up to log2(n)·S. Order of summation: a
    rank adds its children's sums to its own part, the smallest subtree first.
    """
    tree_reduce(comm, flat, combine)
    tree_broadcast(comm, flat)


def ring(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Cut the array into n chunks and send them round a ring of ranks: first add, then copy.

                 start              n-1 steps later         n-1 more steps later
        rank 0   a0 a1 a2 a3        S0 .  .  .              S0 S1 S2 S3
        rank 1   b0 b1 b2 b3   -->  .  S1 .  .        -->   S0 S1 S2 S3      S0 = a0+b0+c0+d0
        rank 2   c0 c1 c2 c3        .  .  S2 .              S0 S1 S2 S3
        rank 3   d0 d1 d2 d3        .  .  .  S3             S0 S1 S2 S3
                           reduce-scatter          all-gather

    In every step each rank sends one chunk to its right neighbour and receives one from its left,
    so all links are busy at the same time (ring.py draws the steps).

    2(n-1) rounds; a rank sends 2(n-1)/n·S bytes, the least that is possible. Order of summation:
    chunk k is summed over ranks k+1, k+2, …, k, so each chunk starts at another rank.
    """
    bounds = shard_bounds(flat.size, comm.size)  # chunk k: flat[bounds[k][0] : bounds[k][1]]
    ring_reduce_scatter(comm, flat, bounds, combine)  # chunk `rank` is complete
    ring_all_gather(comm, flat, bounds, tags.ALL_GATHER)  # all chunks are complete


def recursive_doubling(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """In each round two partners exchange whole arrays and both add: the fewest rounds.

        round 1    0 <-> 1   2 <-> 3   4 <-> 5   6 <-> 7      sums of 2 ranks
        round 2    0 <-> 2   1 <-> 3   4 <-> 6   5 <-> 7      sums of 4 ranks
        round 3    0 <-> 4   1 <-> 5   2 <-> 6   3 <-> 7      sums of 8 ranks

    log2(n) rounds, log2(n)·S bytes a rank; two rounds more if n is no power of two (recursive.py).
    All ranks send (p·log2(p) + 2(n-p))·S bytes. Order of summation: neighbours first,
    ((0+1) + (2+3)) + …; both partners use the lower rank's sum as the left operand, or they would
    end with different bits.
    """
    p = largest_power_of_two(comm.size)
    if not add_extra_ranks(comm, flat, combine):
        comm.recv(flat, comm.rank - p, tags.DOUBLING)
        return
    theirs, distance = xp.empty_like(flat), 1
    while distance < p:
        partner = comm.rank ^ distance
        comm.sendrecv(flat, partner, theirs, partner, tags.DOUBLING)
        combine(*((flat, theirs) if comm.rank < partner else (theirs, flat)), out=flat)
        distance *= 2
    send_to_extra_rank(comm, flat)


def rabenseifner(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Reduce-scatter by recursive halving, then all-gather by recursive doubling.

        round    1     2     3        4     5     6
        sends    S/2   S/4   S/8      S/8   S/4   S/2      8 ranks
                 halve: add           double: copy

    The bytes of the ring in the rounds of a tree: 2·log2(n) rounds (two more if n is no power of
    two), 2(p-1)/p·S bytes a rank. Order of summation: distant partners first, (0+4) + (2+6) + … .
    (Rabenseifner 2004, "Optimization of collective reduction operations".)
    """
    p = largest_power_of_two(comm.size)
    if not add_extra_ranks(comm, flat, combine):
        comm.recv(flat, comm.rank - p, tags.DOUBLING)
        return
    bounds = shard_bounds(flat.size, p)  # p chunks, one for each rank that takes part
    chunks = [[k] for k in range(p)]
    halve(comm, flat, bounds, chunks, combine)  # chunk `rank` is complete
    double(comm, flat, bounds, chunks)  # all chunks are complete
    send_to_extra_rank(comm, flat)


def ordered(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """Sum every element in the order of ranks: the bits of `naive` with the bytes of `ring`.

    The ring starts each chunk at another rank, so its bits depend on where the chunks begin. These
    do not: gradients give the same sum however they are cut into buckets and shards. 2(n-1) rounds,
    2(n-1)/n·S bytes a rank, and memory for n chunks.
    """
    bounds = shard_bounds(flat.size, comm.size)
    ordered_reduce_scatter(comm, flat, bounds, combine)
    ring_all_gather(comm, flat, bounds, tags.ALL_GATHER)


def native(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """MPI_Allreduce; the library chooses the order of summation."""
    native_call(comm, "Allreduce", in_place(), flat, op=mpi_op(combine, flat.dtype))


ALGORITHMS = {
    "ring": ring,
    "naive": naive,
    "tree": tree,
    "doubling": recursive_doubling,
    "ordered": ordered,
    "rabenseifner": rabenseifner,
    "native": native,
}


@by_host
def all_reduce(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: Algorithm = "auto",
    out: xp.ndarray | None = None, label: str = "",
) -> xp.ndarray:  # fmt: skip
    """Every rank gets the elementwise `op` of all ranks' arrays, the same bits everywhere.

    `op` is sum, prod, max, min or mean. The result is written to `out` if given. `array` does not
    change unless it is also `out`. Every rank passes the same shape and dtype. `label` names the
    call in the guard's messages. `algorithm` is a key of ALGORITHMS, a function like those, or
    "auto", for which the table AUTO in auto.py chooses. Your own function is called as
    f(comm, flat, combine): it leaves combine (np.add for a sum) of all ranks' buffers in `flat`.
    """
    where = f"rank {comm.rank} all_reduce"
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, ALGORITHMS, array, op)
    if out is not None:
        _check_out(where, array, out)
    with comm.collective("all_reduce", array, label, reduction=op, algorithm=algorithm):
        result = xp.empty_like(array, order="C") if out is None else out
        # A strided `out` cannot be viewed as a flat buffer: the reduction would go into a copy.
        work = result if result.flags.c_contiguous else xp.empty_like(array, order="C")
        if work is not array:
            xp.copyto(work, array)
        if comm.size > 1:
            run = function_of("all_reduce", ALGORITHMS, algorithm, comm.size, work.nbytes)
            run(comm, work.reshape(-1), comm.reducing(combine_of(op, array.dtype)))
    divide_if_mean(work, op, comm.size)
    if work is not result:
        xp.copyto(result, work)
    return result


iall_reduce = nonblocking(all_reduce)


def _check_out(where: str, array: xp.ndarray, out: xp.ndarray) -> None:
    if not isinstance(out, xp.ndarray) or not getattr(out.flags, "writeable", True):
        raise TypeError(f"{where}: `out` must be a NumPy array that can be written")
    check_array(f"{where} out=", out)
    if out.shape != array.shape or out.dtype != array.dtype:
        raise ValueError(
            f"{where}: `out` is {out.dtype} {out.shape}, but the array is "
            f"{array.dtype} {array.shape}: they must agree"
        )
