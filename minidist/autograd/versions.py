"""Versions of memory: was an array that a VJP saved changed in place before backward needs it?

Recording an operation costs nothing here. A change in place is noted with its time, beside the
memory that it changed. When backward reaches a node, and anything was changed after the node was
recorded, the arrays in its VJPs are looked up. An array is known by the array that owns its memory,
so all views share their changes.
"""

from __future__ import annotations

import itertools
import weakref
from typing import Any, NamedTuple

from ..kernels import arrays as xp
from .saved import saved_arrays


class Change(NamedTuple):
    """The last change of a piece of memory, and how many there were."""

    time: int
    name: str
    changes: int
    watch: weakref.ref  # forgets the change when the memory is gone


NEVER = Change(0, "", 0, lambda: None)  # type: ignore[arg-type]


class Versions:
    """One clock for nodes and changes, and the changes of memory that is still in use."""

    def __init__(self) -> None:
        self.tick = itertools.count(1).__next__
        self.last_change = 0
        self.changes: dict[int, Change] = {}


# One for the process: contexts and threads share memory, so they share its versions.
versions = Versions()


def owner(array: Any) -> xp.ndarray:
    """The array whose memory this one is a view of, or itself."""
    found = array
    while (array := getattr(array, "base", None)) is not None:
        if isinstance(array, xp.ndarray):
            found = array
    return found


def last_change_of(array: xp.ndarray) -> Change:
    """The last change of the array's memory, or NEVER."""
    return versions.changes.get(id(owner(array)), NEVER)


def mark_changed(array: xp.ndarray, name: str) -> None:
    """Note that the operation `name` has just written into the array's memory."""
    memory, changes = owner(array), versions.changes
    key = id(memory)
    before = changes.get(key)
    if before is None:
        watch, count = weakref.ref(memory, lambda _: changes.pop(key, None)), 1
    else:
        watch, count = before.watch, before.changes + 1
    versions.last_change = time = versions.tick()
    changes[key] = Change(time, name, count, watch)


def refuse_changed(name: str, order: int, vjps: Any) -> None:
    """Raise RuntimeError if an array that a node saved was changed after it was recorded."""
    for array in saved_arrays(vjps):
        change = last_change_of(array)
        if change.time > order:
            raise RuntimeError(
                f"backward of '{name}' needs an array of shape {array.shape} that was modified by "
                f"an inplace operation since ('{change.name}', version {change.changes}): use the "
                f"operation that makes a new tensor, or clone() before the change"
            )
