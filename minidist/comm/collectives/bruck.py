"""Bruck's algorithms (Bruck et al. 1997): log2(n) rounds for any n, no power of two wanted."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .chunks import Bounds, packed, room, unpack


def all_gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Everyone's chunk `rank` of `flat` to everyone; (n-1)S bytes.

    After a round a rank holds the chunks of twice as many ranks, from its own number on.
    """
    rank, size, held = comm.rank, comm.size, 1
    while held < size:
        count = min(held, size - held)
        going = [(rank + i) % size for i in range(count)]
        coming = [(rank + held + i) % size for i in range(count)]
        arriving = room(flat, bounds, coming)
        before, after = (rank - held) % size, (rank + held) % size
        comm.sendrecv(packed(flat, bounds, going), before, arriving, after, tag)
        unpack(arriving, flat, bounds, coming)
        held += count


def all_to_all_flat(comm: Communicator, blocks: xp.ndarray) -> xp.ndarray:
    """blocks (n, m), row k for rank k -> (n, m), row k from rank k.

    A block that goes d ranks ahead makes the hops of d's binary digits: some n/2 blocks a round,
    n·log2(n)/2 in all where pairwise exchange sends n-1 in n-1 rounds.
    """
    rank, size, hop = comm.rank, comm.size, 1
    blocks = xp.roll(blocks, -rank, axis=0)  # row d goes d ranks ahead
    while hop < size:
        far = [d for d in range(size) if d & hop]
        going = blocks[far]
        arriving = xp.empty_like(going)
        comm.sendrecv(going, (rank + hop) % size, arriving, (rank - hop) % size, tags.ALL_TO_ALL)
        blocks[far] = arriving
        hop *= 2
    return xp.roll(blocks[::-1], rank + 1, axis=0)  # row d came from d behind
