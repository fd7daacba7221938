"""All-to-all: every rank has rows for every rank; rank k gets all that is for rank k.

    rank 0   a0 a1 a2 a3                a0 b0 c0 d0
    rank 1   b0 b1 b2 b3      -->       a1 b1 c1 d1       a transposition of blocks
    rank 2   c0 c1 c2 c3                a2 b2 c2 d2
    rank 3   d0 d1 d2 d3                a3 b3 c3 d3

The algorithms: `pairwise` (n-1 rounds, any counts), `bruck` (log2 n rounds, equal blocks),
`native`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from . import tags
from .auto import Algorithm, function_of
from .checks import check_algorithm, check_rows
from .chunks import Bounds, chunk, row_bounds
from .entry import by_host, nonblocking
from .native import chunks_as_bytes, native_call
from .ring import neighbours


def pairwise(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, out: xp.ndarray, out_bounds: Bounds
) -> None:
    """In round s every rank sends the rank s ahead its chunk and receives from the one s behind.

    Chunk k of `flat` goes to rank k; the chunk from rank k goes to chunk k of `out`. n-1 rounds,
    (n-1)/n·S bytes a rank.
    """
    chunk(out, out_bounds, comm.rank)[...] = chunk(flat, bounds, comm.rank)
    for step in range(1, comm.size):
        ahead, behind = neighbours(comm, step)
        outgoing, incoming = chunk(flat, bounds, ahead), chunk(out, out_bounds, behind)
        comm.sendrecv(outgoing, ahead, incoming, behind, tags.ALL_TO_ALL)


def bruck(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, out: xp.ndarray, out_bounds: Bounds
) -> None:
    """A block that must go d ranks ahead makes the hops of d's binary digits (Bruck et al. 1997).

        d = 5 = 101 in binary:   a hop of 1, then a hop of 4

    log2(n) rounds of some n/2 blocks each: fewer rounds than pairwise, but more bytes. Blocks must
    be equal, so the bounds are not looked at.
    """
    rank, size, hop = comm.rank, comm.size, 1
    blocks = xp.roll(flat.reshape(size, -1), -rank, axis=0)  # (n, m): row d goes d ranks ahead
    while hop < size:
        far = [d for d in range(size) if d & hop]
        outgoing = blocks[far]  # (some n/2, m)
        incoming = xp.empty_like(outgoing)
        ahead, behind = neighbours(comm, hop)
        comm.sendrecv(outgoing, ahead, incoming, behind, tags.ALL_TO_ALL)
        blocks[far] = incoming
        hop *= 2
    # Row d now came from the rank d behind: reversed and shifted, row k came from rank k.
    out.reshape(size, -1)[...] = xp.roll(blocks[::-1], rank + 1, axis=0)


def native(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, out: xp.ndarray, out_bounds: Bounds
) -> None:
    """MPI_Alltoallv."""
    native_call(comm, "Alltoallv", chunks_as_bytes(flat, bounds), chunks_as_bytes(out, out_bounds))


ALGORITHMS = {"pairwise": pairwise, "bruck": bruck, "native": native}


@by_host
def all_to_all(
    comm: Communicator, array: xp.ndarray, counts: Sequence[int] | None = None,
    coming: Sequence[int] | None = None, algorithm: Algorithm = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """Send some of this rank's rows to each rank; get the rows for this rank, joined by rank.

    Rank k gets counts[k] rows; by default they differ by one at most. `coming`, the rows that each
    rank sends to this one, saves the small exchange that finds them out (all ranks pass it, or
    none). bruck needs a number of rows that n divides, the same on each rank.
    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} all_to_all"
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    check_array(where, array)
    check_rows(where, array)
    if algorithm == "bruck" and (counts is not None or len(array) % comm.size):
        raise ValueError(f"{where}: bruck takes rows that {comm.size} ranks divide evenly")
    row_bounds(comm, where, array.shape, counts)
    shape = array.shape if algorithm == "bruck" else array.shape[1:]
    with comm.collective("all_to_all", array, label, shape, algorithm=algorithm):
        if algorithm == "bruck":  # as many rows from each rank as to it: no need to ask
            coming = [len(array) // comm.size] * comm.size
        counts, coming = row_counts(comm, where, array, counts, coming)
        out = xp.empty_like(array, shape=(sum(coming), *array.shape[1:]), order="C")
        _, bounds = row_bounds(comm, where, array.shape, counts)
        _, out_bounds = row_bounds(comm, where, out.shape, coming)
        run = function_of("all_to_all", ALGORITHMS, algorithm, comm.size, 0)
        run(comm, xp.ascontiguousarray(array).reshape(-1), bounds, out.reshape(-1), out_bounds)
    return out


iall_to_all = nonblocking(all_to_all)


def row_counts(
    comm: Communicator, where: str, array: Any, counts: Sequence[int] | None = None,
    coming: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """(counts, coming): rows of an array, or a tensor, to each rank and from each rank."""
    check_rows(where, array)
    rows, _ = row_bounds(comm, where, array.shape, counts)
    going = [stop - start for start, stop in rows]
    return going, _exchange_counts(comm, going) if coming is None else list(coming)


def _exchange_counts(comm: Communicator, counts: Sequence[int]) -> list[int]:
    """The rows that each rank has for this one: an all-to-all of one number for each rank."""
    one_each = [(k, k + 1) for k in range(comm.size)]
    numbers, out = np.array(counts, np.int64), np.empty(comm.size, np.int64)
    pairwise(comm, numbers, one_each, out, one_each)
    return out.tolist()
