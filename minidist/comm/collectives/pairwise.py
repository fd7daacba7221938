"""Pairwise exchange: in round s every rank sends to the one s ahead and hears from s behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..shards import shard_bounds
from . import ring, tags
from .chunks import Bounds


def reduce_scatter_flat(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` becomes the reduction of everyone's; no other is touched. (n-1)S bytes."""
    mine = flat[slice(*bounds[comm.rank])]
    theirs = xp.empty_like(mine)
    for step in range(1, comm.size):
        ahead, behind = _around(comm, step)
        comm.sendrecv(flat[slice(*bounds[ahead])], ahead, theirs, behind, tags.REDUCE_SCATTER)
        combine(mine, theirs, out=mine)


def reduce_scatter_in_order(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` becomes the reduction of everyone's, folded in the order of ranks.

    So every element is added up in one order wherever the chunks begin, which a ring's start at
    another rank each: sums do not depend on how gradients are cut into buckets and shards, at the
    price of room for n chunks.
    """
    mine = flat[slice(*bounds[comm.rank])]
    parts = xp.empty_like(flat, shape=(comm.size, mine.size))
    parts[comm.rank] = mine
    for step in range(1, comm.size):
        ahead, behind = _around(comm, step)
        going = flat[slice(*bounds[ahead])]
        comm.sendrecv(going, ahead, parts[behind], behind, tags.REDUCE_SCATTER)
    for part in parts[1:]:
        combine(parts[0], part, out=parts[0])
    mine[...] = parts[0]


def all_reduce_in_order(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place, every element folded in the order of ranks: naive's bits at the ring's
    2(n-1)S bytes."""
    bounds = shard_bounds(flat.size, comm.size)
    reduce_scatter_in_order(comm, flat, bounds, combine)
    ring.all_gather_flat(comm, flat, bounds, tags.ALL_GATHER)


def all_to_all_flat(
    comm: Communicator, flat: xp.ndarray, going: Bounds, out: xp.ndarray, coming: Bounds
) -> None:
    """Chunk k of `flat` to rank k, whose chunk for this one goes to chunk k of `out`."""
    out[slice(*coming[comm.rank])] = flat[slice(*going[comm.rank])]
    for step in range(1, comm.size):
        ahead, behind = _around(comm, step)
        comm.sendrecv(
            flat[slice(*going[ahead])], ahead, out[slice(*coming[behind])], behind, tags.ALL_TO_ALL
        )


def exchange_counts(comm: Communicator, counts: Sequence[int]) -> list[int]:
    """What each rank has for this one, of the number that it has for every rank."""
    one = [(k, k + 1) for k in range(comm.size)]
    told, out = numpy.array(counts, numpy.int64), numpy.empty(comm.size, numpy.int64)
    all_to_all_flat(comm, told, one, out, one)
    return out.tolist()


def _around(comm: Communicator, step: int) -> tuple[int, int]:
    return (comm.rank + step) % comm.size, (comm.rank - step) % comm.size
