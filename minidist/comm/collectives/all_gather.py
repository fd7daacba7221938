"""All-gather: every rank gives its rows, every rank gets all rows in rank order.

    rank 0   A                A B C D
    rank 1   B        -->     A B C D
    rank 2   C                A B C D
    rank 3   D                A B C D

The algorithms: ring (ring.py: n-1 rounds), `bruck` (log2 n rounds for any n), `doubling` (log2 n
rounds, made for powers of two), `native`. All send (n-1)S bytes in all, S being the whole result.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy as np

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from ..shards import shard_bounds
from . import tags
from .auto import Algorithm, function_of
from .checks import check_algorithm, check_counts, check_rows
from .chunks import Bounds, chunk, empty_for, pack, row_bounds, unpack
from .entry import by_host, nonblocking
from .native import chunks_as_bytes, in_place, native_call
from .recursive import chunks_of_participants, double, largest_power_of_two
from .ring import ring_all_gather


def bruck(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Each round doubles the chunks that a rank has, from its own number on (Bruck et al. 1997).

        rank 0 has     A         A B         A B C D
        receives       B from 1  C D from 2

    log2(n) rounds, rounded up, for any n; (n-1)/n·S bytes a rank.
    """
    rank, size, count = comm.rank, comm.size, 1  # a rank has the chunks rank … rank + count - 1
    while count < size:
        more = min(count, size - count)
        outgoing = [(rank + i) % size for i in range(more)]
        incoming = [(rank + count + i) % size for i in range(more)]
        message = empty_for(flat, bounds, incoming)
        before, after = (rank - count) % size, (rank + count) % size
        comm.sendrecv(pack(flat, bounds, outgoing), before, message, after, tag)
        unpack(message, flat, bounds, incoming)
        count += more


def doubling(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Recursive doubling (recursive.py): in each round partners exchange all that they have.

    log2(n) rounds, (n-1)/n·S bytes a rank. If n is no power of two, an extra rank gives its chunk
    to its partner first and receives the whole from it last.
    """
    p, rank = largest_power_of_two(comm.size), comm.rank
    if rank >= p:
        comm.send(pack(flat, bounds, [rank]), rank - p, tag)
        comm.recv(flat, rank - p, tag)
        return
    chunks = chunks_of_participants(comm.size)
    for extra in chunks[rank][1:]:
        comm.recv(chunk(flat, bounds, extra), extra, tag)
    double(comm, flat, bounds, chunks)
    for extra in chunks[rank][1:]:
        comm.send(flat, extra, tag)


def native(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """MPI_Allgatherv."""
    native_call(comm, "Allgatherv", in_place(), chunks_as_bytes(flat, bounds))


ALGORITHMS = {"ring": ring_all_gather, "doubling": doubling, "bruck": bruck, "native": native}


@by_host
def all_gather(
    comm: Communicator, array: xp.ndarray, counts: Sequence[int] | None = None,
    algorithm: Algorithm = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """All ranks' rows, joined along axis 0 in rank order; the shards may be uneven or empty.

    `counts`, the rows of each rank, saves the small exchange that finds them out.
    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} all_gather"
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    given = counts and list(counts)
    with comm.collective(
        "all_gather", array, label, array.shape[1:], counts=given, algorithm=algorithm
    ):
        rows = all_gather_counts(comm, len(array)) if counts is None else list(counts)
        result = xp.empty_like(array, shape=(sum(rows), *array.shape[1:]), order="C")
        (_, bounds), flat = row_bounds(comm, where, result.shape, rows), result.reshape(-1)
        chunk(flat, bounds, comm.rank)[...] = array.reshape(-1)  # this rank's part in its place
        run = function_of("all_gather", ALGORITHMS, algorithm, comm.size, result.nbytes)
        run(comm, flat, bounds, tags.ALL_GATHER)
    return result  # (all rows, …)


iall_gather = nonblocking(all_gather)


def all_gather_counts(comm: Communicator, count: int) -> list[int]:
    """Every rank's number of rows, in rank order: 8 bytes from each rank, round the ring."""
    counts = np.zeros(comm.size, np.int64)
    counts[comm.rank] = count
    ring_all_gather(comm, counts, shard_bounds(comm.size, comm.size), tags.ALL_GATHER_COUNTS)
    return counts.tolist()


def all_gather_bytes(comm: Communicator, data: bytes) -> list[bytes]:
    """Every rank's bytes, of any length, in rank order."""
    lengths = all_gather(comm, np.array([len(data)]), counts=[1] * comm.size).tolist()
    joined = all_gather(comm, np.frombuffer(data, np.uint8), counts=lengths).tobytes()
    return [joined[a:b] for a, b in pairwise(accumulate(lengths, initial=0))]
