"""Ranks in a circle: the neighbours of a rank, and the two ring steps that several collectives use.

Each rank sends to its right neighbour and receives from its left one, all of them at the same time.
After n-1 steps every chunk has passed every rank. With 4 ranks, in the reduce-scatter:

    step 1         rank 0 --chunk 3--> rank 1 --chunk 0--> rank 2 --chunk 1--> rank 3 --chunk 2-->
    step 2         rank 0 --chunk 2--> rank 1 --chunk 3--> rank 2 --chunk 0--> rank 3 --chunk 1-->
    step 3         rank 0 --chunk 1--> rank 1 --chunk 2--> rank 2 --chunk 3--> rank 3 --chunk 0-->

Follow chunk 0: it leaves rank 1, rank 2 and rank 3 add their own part, and rank 0 adds the last.
In the all-gather the finished chunks travel the same way and are copied instead of added.
"""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .chunks import Bounds, chunk


def neighbours(comm: Communicator, distance: int = 1) -> tuple[int, int]:
    """(ahead, behind): the ranks at this distance round the circle."""
    return (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size


def ring_reduce_scatter(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` of `flat` becomes the reduction over all ranks; other chunks are overwritten.

    n-1 rounds, (n-1)/n·S bytes a rank. Chunk k starts at rank k+1. Each rank it passes adds its own
    part, so chunk k is summed in the order of ranks k+1, k+2, …, k and arrives at rank k complete.
    """
    rank, size = comm.rank, comm.size
    longest = xp.empty_like(flat, shape=max(stop - start for start, stop in bounds))
    for step in range(size - 1):
        outgoing = chunk(flat, bounds, (rank - 1 - step) % size)
        mine = chunk(flat, bounds, (rank - 2 - step) % size)
        partial_sum = longest[: mine.size]
        pass_on(comm, outgoing, partial_sum, tags.REDUCE_SCATTER)
        combine(partial_sum, mine, out=mine)


def ring_all_gather(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Chunk k of rank k's `flat` is copied to every rank; n-1 rounds, (n-1)/n·S bytes a rank."""
    rank, size = comm.rank, comm.size
    for step in range(size - 1):
        outgoing = chunk(flat, bounds, (rank - step) % size)
        incoming = chunk(flat, bounds, (rank - 1 - step) % size)
        pass_on(comm, outgoing, incoming, tag)


def pass_on(comm: Communicator, outgoing: xp.ndarray, incoming: xp.ndarray, tag: int) -> None:
    """One step: send to the right neighbour and receive from the left one at the same time."""
    right, left = neighbours(comm)
    comm.sendrecv(outgoing, right, incoming, left, tag)
