"""Recursive halving and doubling: log2(n) rounds between partners whose numbers differ in one bit.

With 4 ranks and the buffer in chunks A B C D, `halve` (a reduce-scatter) and `double` (an
all-gather) exchange:

    halve, round 1    0 <-> 2, 1 <-> 3    rank 0 gives C D and adds the partner's A B to its own
    halve, round 2    0 <-> 1, 2 <-> 3    rank 0 gives B and adds A: chunk A is complete
    double, round 1   0 <-> 1, 2 <-> 3    rank 0 gives A and gets B
    double, round 2   0 <-> 2, 1 <-> 3    rank 0 gives A B and gets C D

If n is not a power of two, let p be the largest one below n. Rank p + i is an extra rank: it sends
its part to rank i first and gets its result from rank i last (Thakur, Rabenseifner & Gropp 2005,
section 4.4). Only the first p ranks take part in the rounds.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .chunks import Bounds, combine_packed, exchange, unpack


def largest_power_of_two(size: int) -> int:
    """The largest power of two that is not above `size`.

    >>> [largest_power_of_two(n) for n in (1, 2, 3, 4, 7, 8)]
    [1, 2, 2, 4, 4, 8]
    """
    return 1 << size.bit_length() - 1


def chunks_of_participants(size: int) -> list[list[int]]:
    """The chunks that each of the first p ranks is responsible for: its own, its extra rank's.

    >>> chunks_of_participants(6)
    [[0, 4], [1, 5], [2], [3]]
    """
    p = largest_power_of_two(size)
    return [[k, *([k + p] if k + p < size else [])] for k in range(p)]


def add_extra_ranks(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> bool:
    """Combine the parts of the n - p extra ranks into those of the first n - p ranks.

    Returns False on the extra ranks, which then only wait for their result.
    """
    p = largest_power_of_two(comm.size)
    if comm.rank >= p:
        comm.send(flat, comm.rank - p, tags.DOUBLING)
        return False
    if comm.rank + p < comm.size:
        combine(flat, comm.recv(xp.empty_like(flat), comm.rank + p, tags.DOUBLING), out=flat)
    return True


def send_to_extra_rank(comm: Communicator, flat: xp.ndarray) -> None:
    """Give the result to this rank's extra rank, if it has one."""
    p = largest_power_of_two(comm.size)
    if comm.rank + p < comm.size:
        comm.send(flat, comm.rank + p, tags.DOUBLING)


def halve(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, chunks: Sequence[Sequence[int]],
    combine: xp.ufunc,
) -> None:  # fmt: skip
    """Reduce-scatter among the first p ranks: rank k completes the chunks chunks[k].

    In each round a rank gives away the half of its range that its partner keeps, and adds the
    partner's part to the half that it keeps itself. The lower rank's part is the left operand.
    """
    low, high = 0, len(chunks)  # the range of ranks whose chunks this rank still works on
    while high - low > 1:
        middle = (low + high) // 2
        partner = comm.rank ^ (middle - low)
        ranges = (low, middle), (middle, high)
        kept, given = ranges if comm.rank < middle else ranges[::-1]
        keep, give = (_joined(chunks[a:b]) for a, b in (kept, given))
        theirs = exchange(comm, partner, flat, bounds, give, keep, tags.DOUBLING)
        combine_packed(theirs, flat, bounds, keep, combine, message_first=partner < comm.rank)
        low, high = kept


def double(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, chunks: Sequence[Sequence[int]]
) -> None:
    """All-gather among the first p ranks: a round exchanges all chunks that a rank has so far."""
    distance = 1
    while distance < len(chunks):
        start, partner = comm.rank // distance * distance, comm.rank ^ distance
        other = partner // distance * distance
        mine, theirs = (_joined(chunks[a : a + distance]) for a in (start, other))
        message = exchange(comm, partner, flat, bounds, mine, theirs, tags.DOUBLING)
        unpack(message, flat, bounds, theirs)
        distance *= 2


def _joined(lists: Sequence[Sequence[int]]) -> list[int]:
    return [k for some in lists for k in some]
