"""Ring algorithms: each rank talks to its two neighbours only, and all of them all the time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..communicator import Communicator, check_array
from ..shards import shard_bounds
from . import tags

Bounds = Sequence[tuple[int, int]]  # chunk k of a flat buffer is flat[start:stop]


def all_reduce_flat(comm: Communicator, flat: np.ndarray, combine: np.ufunc) -> None:
    """All-reduce in place: reduce-scatter, then all-gather. All ranks send 2(n-1)S bytes."""
    bounds = shard_bounds(flat.size, comm.size)
    reduce_scatter_flat(comm, flat, bounds, combine)
    all_gather_flat(comm, flat, bounds, tags.ALL_GATHER)


def reduce_scatter_flat(
    comm: Communicator, flat: np.ndarray, bounds: Bounds, combine: np.ufunc
) -> None:
    """Chunk `rank` of `flat` becomes the reduction of everyone's; the other chunks are spoilt.

    Chunk k starts at rank k+1 and is folded from the left on its way round to rank k.
    """
    rank, size = comm.rank, comm.size
    arriving = np.empty(max(stop - start for start, stop in bounds), flat.dtype)
    for step in range(size - 1):
        going = flat[slice(*bounds[(rank - 1 - step) % size])]
        mine = flat[slice(*bounds[(rank - 2 - step) % size])]
        theirs = arriving[: mine.size]
        _pass_on(comm, going, theirs, tags.REDUCE_SCATTER)
        combine(theirs, mine, out=mine)


def all_gather_flat(comm: Communicator, flat: np.ndarray, bounds: Bounds, tag: int) -> None:
    """Everyone's chunk `rank` of `flat` goes once round the ring; all ranks send (n-1)S bytes."""
    rank, size = comm.rank, comm.size
    for step in range(size - 1):
        going = flat[slice(*bounds[(rank - step) % size])]
        arriving = flat[slice(*bounds[(rank - 1 - step) % size])]
        _pass_on(comm, going, arriving, tag)


def _pass_on(comm: Communicator, going: np.ndarray, arriving: np.ndarray, tag: int) -> None:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    comm.sendrecv(going, right, arriving, left, tag)


def exchange_counts(comm: Communicator, count: int) -> list[int]:
    counts = np.zeros(comm.size, np.int64)
    counts[comm.rank] = count
    all_gather_flat(comm, counts, shard_bounds(comm.size, comm.size), tags.ALL_GATHER_COUNTS)
    return counts.tolist()


def check_rows(
    comm: Communicator, where: str, array: np.ndarray, counts: Sequence[int] | None
) -> None:
    """Refuse what has no rows, and counts that do not tell of this rank's."""
    check_array(where, array)
    if array.ndim == 0:
        raise ValueError(f"{where}: a 0-d array has no rows to join, pass array.reshape(1)")
    if counts is not None and (len(counts) != comm.size or counts[comm.rank] != len(array)):
        raise ValueError(
            f"{where}: counts={list(counts)} must hold {comm.size} numbers, "
            f"and at {comm.rank} this rank's {len(array)} rows"
        )
