"""Versions of memory: was an array that a VJP saved changed in place before backward needs it?

Recording an operation costs nothing here. A change in place is noted with its time, beside the
memory that it changed. When backward reaches a node, and anything was changed after the node was
recorded, the arrays in its VJPs are looked up. An array is known by the array that owns its memory,
so all views share their changes.
"""

from __future__ import annotations

import functools
import itertools
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..kernels import arrays as xp


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
    memory, before = owner(array), last_change_of(array)
    key, changes = id(memory), versions.changes
    versions.last_change = versions.tick()
    forget = lambda _: changes.pop(key, None)
    watch = before.watch if before.changes else weakref.ref(memory, forget)
    changes[key] = Change(versions.last_change, name, before.changes + 1, watch)


def saved_arrays(vjps: Any) -> Iterator[xp.ndarray]:
    """The arrays that VJPs hold, through closures, defaults, partials and containers."""
    stack, seen = [vjps], set()
    while stack:
        thing = stack.pop()
        if isinstance(thing, xp.ndarray):
            if id(thing) not in seen:
                yield thing
        elif id(thing) not in seen:
            stack.extend(_inside(thing))
        seen.add(id(thing))


def _inside(thing: Any) -> Any:
    if isinstance(thing, types.FunctionType):
        return [*map(_content, thing.__closure__ or ()), *(thing.__defaults__ or ())]
    if isinstance(thing, list | tuple | set):
        return thing
    if isinstance(thing, dict):
        return thing.values()
    if isinstance(thing, functools.partial):
        return (thing.func, thing.args, thing.keywords)
    return ()


def _content(cell: types.CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # a name that was never given a value
        return None


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
