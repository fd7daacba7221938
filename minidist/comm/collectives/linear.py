"""Linear algorithms: the root talks to each of the others in turn. n-1 messages, n-1 rounds."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, wait_all
from . import tags
from .chunks import Bounds


def broadcast_flat(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """Root's `flat` to everyone."""
    if comm.rank != root:
        comm.recv(flat, root, tags.BROADCAST)
        return
    wait_all([comm.isend(flat, k, tags.BROADCAST) for k in _others(comm)])


def reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """Root's `flat` becomes the reduction, folded in rank order, from the root on."""
    if comm.rank != root:
        comm.send(flat, root, tags.REDUCE)
        return
    theirs = xp.empty_like(flat)
    for source in [(root + i) % comm.size for i in range(1, comm.size)]:
        combine(flat, comm.recv(theirs, source, tags.REDUCE), out=flat)


def scatter_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of root's `flat` to rank k's."""
    if comm.rank != root:
        comm.recv(flat[slice(*bounds[comm.rank])], root, tags.SCATTER)
        return
    wait_all([comm.isend(flat[slice(*bounds[k])], k, tags.SCATTER) for k in _others(comm)])


def gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of rank k's `flat` to root's."""
    if comm.rank != root:
        comm.send(flat[slice(*bounds[comm.rank])], root, tags.GATHER)
        return
    wait_all([comm.irecv(flat[slice(*bounds[k])], k, tags.GATHER) for k in _others(comm)])


def _others(comm: Communicator) -> list[int]:
    return [k for k in range(comm.size) if k != comm.rank]
