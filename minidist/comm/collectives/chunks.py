"""Chunks of a flat buffer, one for each rank: their bounds, and messages made of several of them.

Every algorithm works on a flat buffer, so that it need not know about shapes and dtypes. A list
`bounds` says where each rank's chunk begins and ends; chunks may be uneven or empty:

    flat      | chunk 0 | chunk 1 |   chunk 2   | chunk 3 |
    bounds    [ (0, 3),   (3, 6),    (6, 10),    (10, 13) ]
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..shards import shard_bounds

Bounds = Sequence[tuple[int, int]]  # chunk k is flat[start:stop] with (start, stop) = bounds[k]
SEGMENT = 1 << 18  # bytes of a chain's segments: long beside a latency, short beside the whole


def row_bounds(
    comm: Communicator, where: str, shape: tuple, counts: Sequence[int] | None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """(rows, bounds): each rank's rows of an array of `shape`, and their place in it when flat.

    Rank k has counts[k] rows, which must sum to all; by default they differ by one at most.
    """
    if counts is None:
        rows = shard_bounds(shape[0], comm.size)
    else:
        edges = [*accumulate(counts, initial=0)]
        if len(counts) != comm.size or min(counts) < 0 or edges[-1] != shape[0]:
            raise ValueError(
                f"{where}: counts={list(counts)}: want {comm.size} numbers, the rows of each rank, "
                f"that sum to {shape[0]}"
            )
        rows = list(pairwise(edges))
    width = math.prod(shape[1:])  # numbers in one row
    return rows, [(a * width, b * width) for a, b in rows]


def chunk(flat: xp.ndarray, bounds: Bounds, k: int) -> xp.ndarray:
    """Chunk k, as a view."""
    start, stop = bounds[k]
    return flat[start:stop]


def pack(flat: xp.ndarray, bounds: Bounds, ranks: Sequence[int]) -> xp.ndarray:
    """The chunks of these ranks in one array, one after the other; a single one is not copied."""
    parts = [chunk(flat, bounds, k) for k in ranks]
    return parts[0] if len(parts) == 1 else xp.concatenate(parts, dtype=flat.dtype)


def empty_for(flat: xp.ndarray, bounds: Bounds, ranks: Sequence[int]) -> xp.ndarray:
    """A receive buffer for the chunks of these ranks."""
    return xp.empty_like(flat, shape=sum(bounds[k][1] - bounds[k][0] for k in ranks))


def unpack(message: xp.ndarray, flat: xp.ndarray, bounds: Bounds, ranks: Sequence[int]) -> None:
    """Copy each chunk of a packed message to its place in `flat`."""
    for part, k in zip(_parts(message, bounds, ranks), ranks):
        chunk(flat, bounds, k)[...] = part


def combine_packed(
    message: xp.ndarray, flat: xp.ndarray, bounds: Bounds, ranks: Sequence[int],
    combine: xp.ufunc, message_first: bool,
) -> None:  # fmt: skip
    """Combine each chunk of a packed message with the chunk in `flat`.

    `message_first` makes the message the left operand: in floating point the order decides bits.
    """
    for theirs, k in zip(_parts(message, bounds, ranks), ranks):
        mine = chunk(flat, bounds, k)
        combine(*((theirs, mine) if message_first else (mine, theirs)), out=mine)


def exchange(
    comm: Communicator, partner: int, flat: xp.ndarray, bounds: Bounds, send: Sequence[int],
    receive: Sequence[int], tag: int,
) -> xp.ndarray:  # fmt: skip
    """Send the chunks of the ranks `send` to a partner; return its message, chunks `receive`."""
    message = empty_for(flat, bounds, receive)
    return comm.sendrecv(pack(flat, bounds, send), partner, message, partner, tag)


def segments(flat: xp.ndarray) -> list[xp.ndarray]:
    """Views of SEGMENT bytes each, the last one shorter: at least one, also of an empty buffer."""
    step = max(1, SEGMENT // flat.itemsize)
    return [flat[i : i + step] for i in range(0, flat.size, step)] or [flat]


def _parts(message: xp.ndarray, bounds: Bounds, ranks: Sequence[int]) -> list[xp.ndarray]:
    edges = list(accumulate(bounds[k][1] - bounds[k][0] for k in ranks))[:-1]
    return xp.split(message, edges)
