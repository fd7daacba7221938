"""Ring algorithms: each rank talks to its two neighbours only, and all of them all the time."""

from __future__ import annotations

import numpy

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..shards import shard_bounds
from . import tags
from .chunks import Bounds


def all_reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place: reduce-scatter, then all-gather. All ranks send 2(n-1)S bytes."""
    bounds = shard_bounds(flat.size, comm.size)
    reduce_scatter_flat(comm, flat, bounds, combine)
    all_gather_flat(comm, flat, bounds, tags.ALL_GATHER)


def reduce_scatter_flat(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` of `flat` becomes the reduction of everyone's; the other chunks are spoilt.

    Chunk k starts at rank k+1 and is folded from the left on its way round to rank k.
    """
    rank, size = comm.rank, comm.size
    arriving = xp.empty_like(flat, shape=max(stop - start for start, stop in bounds))
    for step in range(size - 1):
        going = flat[slice(*bounds[(rank - 1 - step) % size])]
        mine = flat[slice(*bounds[(rank - 2 - step) % size])]
        theirs = arriving[: mine.size]
        _pass_on(comm, going, theirs, tags.REDUCE_SCATTER)
        combine(theirs, mine, out=mine)


def all_gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Everyone's chunk `rank` of `flat` goes once round the ring; all ranks send (n-1)S bytes."""
    rank, size = comm.rank, comm.size
    for step in range(size - 1):
        going = flat[slice(*bounds[(rank - step) % size])]
        arriving = flat[slice(*bounds[(rank - 1 - step) % size])]
        _pass_on(comm, going, arriving, tag)


def _pass_on(comm: Communicator, going: xp.ndarray, arriving: xp.ndarray, tag: int) -> None:
    right, left = (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    comm.sendrecv(going, right, arriving, left, tag)


def exchange_counts(comm: Communicator, count: int) -> list[int]:
    counts = numpy.zeros(comm.size, numpy.int64)
    counts[comm.rank] = count
    all_gather_flat(comm, counts, shard_bounds(comm.size, comm.size), tags.ALL_GATHER_COUNTS)
    return counts.tolist()
