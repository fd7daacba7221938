"""Binomial trees: in each round, every rank that has the message passes it on to one more."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, wait_all
from . import tags
from .chunks import Bounds, packed, room, unpack


def broadcast_flat(
    comm: Communicator, flat: xp.ndarray, root: int = 0, tag: int = tags.BROADCAST
) -> None:
    """Root's `flat` to everyone; n-1 messages, log2(n) rounds."""
    place = (comm.rank - root) % comm.size
    if place > 0:
        comm.recv(flat, _rank(comm, parent(place), root), tag)
    wait_all(
        [comm.isend(flat, _rank(comm, child, root), tag) for child in children(place, comm.size)]
    )


def reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """Root's `flat` becomes the reduction, the others' are spoilt; n-1 messages, log2(n) rounds.

    A rank folds its children into its own in the order of their places.
    """
    place, theirs = (comm.rank - root) % comm.size, xp.empty_like(flat)
    for child in reversed(children(place, comm.size)):
        combine(flat, comm.recv(theirs, _rank(comm, child, root), tags.REDUCE), out=flat)
    if place > 0:
        comm.send(flat, _rank(comm, parent(place), root), tags.REDUCE)


def scatter_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of root's `flat` to rank k's: each rank is sent its whole subtree's, and passes on.

    log2(n) rounds; chunks that make several hops are sent as often.
    """
    place = (comm.rank - root) % comm.size
    if place > 0:
        owners = _subtree(comm, place, root)
        message = comm.recv(room(flat, bounds, owners), _rank(comm, parent(place), root),
                            tags.SCATTER)  # fmt: skip
        unpack(message, flat, bounds, owners)
    sends = [
        comm.isend(packed(flat, bounds, _subtree(comm, child, root)), _rank(comm, child, root),
                   tags.SCATTER)
        for child in children(place, comm.size)
    ]  # fmt: skip
    wait_all(sends)


def gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of rank k's `flat` to root's: each rank collects its subtree's and hands them on."""
    place = (comm.rank - root) % comm.size
    for child in reversed(children(place, comm.size)):
        owners = _subtree(comm, child, root)
        message = room(flat, bounds, owners)
        comm.recv(message, _rank(comm, child, root), tags.GATHER)
        unpack(message, flat, bounds, owners)
    if place > 0:
        owners = _subtree(comm, place, root)
        comm.send(packed(flat, bounds, owners), _rank(comm, parent(place), root), tags.GATHER)


def _rank(comm: Communicator, place: int, root: int) -> int:
    return (place + root) % comm.size


def _subtree(comm: Communicator, place: int, root: int) -> list[int]:
    """The ranks below a place and at it, in order of place."""
    lowest = place & -place or comm.size
    return [_rank(comm, p, root) for p in range(place, min(place + lowest, comm.size))]


def all_reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place: to rank 0 and back. All ranks send 2(n-1)S bytes."""
    reduce_flat(comm, flat, combine)
    broadcast_flat(comm, flat)


def parent(place: int) -> int:
    """Who sends to this place: the same number without its lowest one-bit."""
    return place & (place - 1)


def children(place: int, size: int) -> list[int]:
    """Whom this place sends to, the largest subtree first.

    >>> children(0, 6), children(4, 6)
    ([4, 2, 1], [5])
    """
    lowest = place & -place or size
    bits = [1 << k for k in range(size.bit_length()) if 1 << k < lowest]
    return [place + bit for bit in reversed(bits) if place + bit < size]
