"""Chunks of a flat buffer by owner, packed into one message where they do not lie side by side."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from ...kernels import arrays as xp
from ..communicator import Communicator

Bounds = Sequence[tuple[int, int]]  # chunk k of a flat buffer is flat[start:stop]


def packed(flat: xp.ndarray, bounds: Bounds, owners: Sequence[int]) -> xp.ndarray:
    """The owners' chunks, one after the other."""
    parts = [flat[slice(*bounds[k])] for k in owners]
    return parts[0] if len(parts) == 1 else xp.concatenate(parts, dtype=flat.dtype)


def room(flat: xp.ndarray, bounds: Bounds, owners: Sequence[int]) -> xp.ndarray:
    """An array for their chunks."""
    return xp.empty_like(flat, shape=sum(bounds[k][1] - bounds[k][0] for k in owners))


def unpack(message: xp.ndarray, flat: xp.ndarray, bounds: Bounds, owners: Sequence[int]) -> None:
    """Each owner's chunk to its place."""
    for part, k in zip(_parts(message, bounds, owners), owners):
        flat[slice(*bounds[k])] = part


def fold(
    message: xp.ndarray, flat: xp.ndarray, bounds: Bounds, owners: Sequence[int],
    combine: xp.ufunc, ahead: bool,
) -> None:  # fmt: skip
    """Each owner's chunk with what is in its place, as the first operand if `ahead`."""
    for theirs, k in zip(_parts(message, bounds, owners), owners):
        mine = flat[slice(*bounds[k])]
        combine(*((theirs, mine) if ahead else (mine, theirs)), out=mine)


def _parts(message: xp.ndarray, bounds: Bounds, owners: Sequence[int]) -> list[xp.ndarray]:
    edges = list(accumulate(bounds[k][1] - bounds[k][0] for k in owners))[:-1]
    return xp.split(message, edges)


def swap(
    comm: Communicator, partner: int, flat: xp.ndarray, bounds: Bounds, going: Sequence[int],
    coming: Sequence[int], tag: int,
) -> xp.ndarray:  # fmt: skip
    """Send the chunks `going` to a partner and return what it sends, its chunks `coming`."""
    arriving = room(flat, bounds, coming)
    return comm.sendrecv(packed(flat, bounds, going), partner, arriving, partner, tag)
