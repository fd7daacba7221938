"""Pairwise exchange: in round s every rank sends to the one s ahead and hears from s behind."""

from __future__ import annotations

from collections.abc import Sequence

import numpy

from ...kernels import arrays as np
from ..communicator import Communicator
from . import tags
from .chunks import Bounds


def reduce_scatter_flat(
    comm: Communicator, flat: np.ndarray, bounds: Bounds, combine: np.ufunc
) -> None:
    """Chunk `rank` becomes the reduction of everyone's; no other is touched. (n-1)S bytes."""
    mine = flat[slice(*bounds[comm.rank])]
    theirs = np.empty_like(mine)
    for step in range(1, comm.size):
        ahead, behind = _around(comm, step)
        comm.sendrecv(flat[slice(*bounds[ahead])], ahead, theirs, behind, tags.REDUCE_SCATTER)
        combine(mine, theirs, out=mine)


def all_to_all_flat(
    comm: Communicator, flat: np.ndarray, going: Bounds, out: np.ndarray, coming: Bounds
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
