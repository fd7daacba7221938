"""Chains: each rank passes on to the next, a segment at a time, so that all links work at once."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, wait_all
from . import tags

SEGMENT = 1 << 18  # bytes: long against a message's latency, short against the whole


def broadcast_flat(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """Root's `flat` to everyone; (n-1)S bytes, in the time of one passage and n segments."""
    place = (comm.rank - root) % comm.size
    before, after, sending = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size, []
    for part in _segments(flat):
        if place > 0:
            comm.recv(part, before, tags.BROADCAST)
        if place < comm.size - 1:
            sending.append(comm.isend(part, after, tags.BROADCAST))
    wait_all(sending)


def reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int = 0) -> None:
    """Root's `flat` becomes the reduction, folded from the last place to the first."""
    place = (comm.rank - root) % comm.size
    before, after, sending = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size, []
    theirs = xp.empty_like(flat)
    for part, arriving in zip(_segments(flat), _segments(theirs)):
        if place < comm.size - 1:
            combine(part, comm.recv(arriving, after, tags.REDUCE), out=part)
        if place > 0:
            sending.append(comm.isend(part, before, tags.REDUCE))
    wait_all(sending)


def scan_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """`flat` becomes the reduction of ranks 0 to this one; (n-1)S bytes, one after the other."""
    if comm.rank > 0:
        combine(comm.recv(xp.empty_like(flat), comm.rank - 1, tags.SCAN), flat, out=flat)
    if comm.rank < comm.size - 1:
        comm.send(flat, comm.rank + 1, tags.SCAN)


def _segments(flat: xp.ndarray) -> list[xp.ndarray]:
    step = max(1, SEGMENT // flat.itemsize)
    return [flat[i : i + step] for i in range(0, flat.size, step)] or [flat]
