"""Binomial trees: in each round, every rank that has the message passes it on to one more."""

from __future__ import annotations

import operator

import numpy as np

from ..communicator import Communicator, check_array
from . import tags


def broadcast(comm: Communicator, array: np.ndarray, root: int = 0) -> np.ndarray:
    """Fill `array` on every rank with the root's, and return it; n-1 messages, log2(n) rounds."""
    _check(comm, array, root)
    place = (comm.rank - root) % comm.size
    if place > 0:
        comm.recv(array, (parent(place) + root) % comm.size, tags.BROADCAST)
    requests = [
        comm.isend(array, (child + root) % comm.size, tags.BROADCAST)
        for child in children(place, comm.size)
    ]
    for request in requests:
        request.wait()
    return array


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


def _check(comm: Communicator, array: np.ndarray, root: int) -> None:
    where = f"rank {comm.rank} broadcast"
    check_array(where, array)
    if not 0 <= operator.index(root) < comm.size:
        raise ValueError(f"{where}: root={root} does not exist, ranks are 0 to {comm.size - 1}")
    if comm.rank != root and not array.flags.writeable:
        raise ValueError(f"{where}: the array is read-only, broadcast into a copy")
