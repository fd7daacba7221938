"""Recursive doubling and halving: partners whose numbers differ in one bit, log2(n) rounds.

For n that is no power of two (Thakur, Rabenseifner & Gropp 2005, 4.4): with p the largest one
below n, rank p + i hands its part to rank i first and gets its result from it last.
"""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..shards import shard_bounds
from . import tags
from .chunks import Bounds, fold, packed, swap, unpack


def power(size: int) -> int:
    """The largest power of two that is not over size."""
    return 1 << size.bit_length() - 1


def all_reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place by exchanging everything log2(n) times: best for what is small.

    All ranks send (p·log2(p) + 2(n-p))·S bytes.
    """
    if not _hand_in(comm, flat, combine):
        comm.recv(flat, comm.rank - power(comm.size), tags.DOUBLING)
        return
    theirs, distance = xp.empty_like(flat), 1
    while distance < power(comm.size):
        partner = comm.rank ^ distance
        comm.sendrecv(flat, partner, theirs, partner, tags.DOUBLING)
        combine(*((flat, theirs) if comm.rank < partner else (theirs, flat)), out=flat)
        distance *= 2
    _hand_out(comm, flat)


def rabenseifner_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place: reduce-scatter by halving, then all-gather by doubling.

    All ranks send 2(p-1)·S + 2(n-p)·S bytes in 2·log2(p) + 2 rounds.
    """
    p = power(comm.size)
    if not _hand_in(comm, flat, combine):
        comm.recv(flat, comm.rank - p, tags.DOUBLING)
        return
    bounds = shard_bounds(flat.size, p)
    _halve(comm, flat, bounds, [[k] for k in range(p)], combine)
    _double(comm, flat, bounds, [[k] for k in range(p)])
    _hand_out(comm, flat)


def reduce_scatter_flat(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` becomes the reduction of everyone's, by halving; the others are spoilt."""
    p, rank = power(comm.size), comm.rank
    mine = flat[slice(*bounds[rank])]
    if not _hand_in(comm, flat, combine):
        comm.recv(mine, rank - p, tags.DOUBLING)
        return
    owners = _owners(comm.size)
    _halve(comm, flat, bounds, owners, combine)
    for other in owners[rank][1:]:
        comm.send(packed(flat, bounds, [other]), other, tags.DOUBLING)


def all_gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Everyone's chunk `rank` of `flat` to everyone, what is held doubling each round."""
    p, rank = power(comm.size), comm.rank
    if rank >= p:
        comm.send(packed(flat, bounds, [rank]), rank - p, tag)
        comm.recv(flat, rank - p, tag)
        return
    owners = _owners(comm.size)
    for other in owners[rank][1:]:
        comm.recv(flat[slice(*bounds[other])], other, tag)
    _double(comm, flat, bounds, owners)
    for other in owners[rank][1:]:
        comm.send(flat, other, tag)


def _owners(size: int) -> list[list[int]]:
    """Whose chunks each of the first p ranks looks after."""
    p = power(size)
    return [[k, *([k + p] if k + p < size else [])] for k in range(p)]


def _all(owners: list[list[int]]) -> list[int]:
    return [k for few in owners for k in few]


def _hand_in(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> bool:
    """Fold the last n - p ranks into the first ones; False on those that now wait."""
    p = power(comm.size)
    if comm.rank >= p:
        comm.send(flat, comm.rank - p, tags.DOUBLING)
        return False
    if comm.rank + p < comm.size:
        combine(flat, comm.recv(xp.empty_like(flat), comm.rank + p, tags.DOUBLING), out=flat)
    return True


def _hand_out(comm: Communicator, flat: xp.ndarray) -> None:
    p = power(comm.size)
    if comm.rank + p < comm.size:
        comm.send(flat, comm.rank + p, tags.DOUBLING)


def _halve(comm, flat, bounds, owners, combine):
    """Each round gives away half of what is left, and folds the partner's half into the other."""
    low, high = 0, len(owners)
    while high - low > 1:
        middle = (low + high) // 2
        partner = comm.rank ^ (middle - low)
        ranges = (low, middle), (middle, high)
        kept, given = ranges if comm.rank < middle else ranges[::-1]
        keep, give = (_all(owners[a:b]) for a, b in (kept, given))
        theirs = swap(comm, partner, flat, bounds, give, keep, tags.DOUBLING)
        fold(theirs, flat, bounds, keep, combine, partner < comm.rank)
        low, high = kept


def _double(comm, flat, bounds, owners):
    """Each round exchanges all that is held."""
    distance = 1
    while distance < len(owners):
        start, partner = comm.rank // distance * distance, comm.rank ^ distance
        other = partner // distance * distance
        held, coming = (_all(owners[a : a + distance]) for a in (start, other))
        unpack(swap(comm, partner, flat, bounds, held, coming, tags.DOUBLING), flat, bounds, coming)
        distance *= 2


def scan_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """`flat` becomes the reduction of ranks 0 to this one (Hillis & Steele 1986).

    In the round of distance d a rank sends what it has of the d ranks up to itself; log2(n) rounds.
    """
    distance = 1
    while distance < comm.size:
        ahead, behind = comm.rank + distance, comm.rank - distance
        sending = None
        if ahead < comm.size:
            sending = comm.isend(flat.copy(), ahead, tags.SCAN)
        if behind >= 0:
            combine(comm.recv(xp.empty_like(flat), behind, tags.SCAN), flat, out=flat)
        if sending is not None:
            sending.wait()
        distance *= 2
