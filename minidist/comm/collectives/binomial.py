"""The binomial tree: each rank's parent and children in broadcast, reduce, scatter and gather.

Ranks are numbered from the root on: the position of a rank is (rank - root) mod n, so the root has
position 0. The parent of a position is the same number without its lowest one-bit:

              0                 8 ranks. In a broadcast position 0 sends to 4, 2 and 1. Position 4
         _____|_____            forwards to 6 and 5 while position 0 still sends to 2. So the
        |     |     |           number of positions that have the message doubles each round,
        4     2     1           and log2(n) rounds reach all. A reduction goes the other way:
       / \\    |                 from the leaves to position 0.
      6   5   3
      |
      7
"""

from __future__ import annotations

from ..communicator import Communicator


def family(comm: Communicator, root: int) -> tuple[int | None, list[int]]:
    """(parent, children) of this rank, as ranks: the largest subtree first, None above the root."""
    position = (comm.rank - root) % comm.size
    above = (parent(position) + root) % comm.size if position > 0 else None
    return above, [(child + root) % comm.size for child in children(position, comm.size)]


def subtree(comm: Communicator, rank: int, root: int) -> list[int]:
    """The ranks of the subtree whose top is `rank`, in the order of their positions."""
    position = (rank - root) % comm.size
    most = position & -position or comm.size  # positions in it, if the tree were full
    return [(p + root) % comm.size for p in range(position, min(position + most, comm.size))]


def parent(position: int) -> int:
    """The position without its lowest one-bit."""
    return position & (position - 1)


def children(position: int, size: int) -> list[int]:
    """The positions whose parent this is, the largest subtree first.

    >>> children(0, 6), children(4, 6)
    ([4, 2, 1], [5])
    """
    lowest = position & -position or size
    bits = [1 << k for k in range(size.bit_length()) if 1 << k < lowest]
    return [position + bit for bit in reversed(bits) if position + bit < size]
