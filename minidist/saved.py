"""The arrays that VJPs keep for backward, and whether one of them was changed in place since.

Nothing is noted when an operation is recorded. A change in place notes its time beside the memory
that it changed; when a node is pulled and something was changed after it was recorded, the arrays
in its VJPs are looked up. Memory is known by the array that owns it, so views share its changes.
"""

from __future__ import annotations

import functools
import itertools
import types
import weakref
from collections.abc import Iterator
from typing import Any, NamedTuple

from .kernels import arrays as np

clock = itertools.count(1)  # orders nodes and changes alike
last_change = 0


class Change(NamedTuple):
    """The last change of a piece of memory, and how many there were."""

    time: int
    name: str
    changes: int
    watch: weakref.ref  # forgets the change when the memory is gone


_changes: dict[int, Change] = {}
NEVER = Change(0, "", 0, lambda: None)  # type: ignore[arg-type]


def owner(array: Any) -> np.ndarray:
    """The array whose memory this one is a view of, or itself."""
    found = array
    while (array := getattr(array, "base", None)) is not None:
        if isinstance(array, np.ndarray):
            found = array
    return found


def last_change_of(array: np.ndarray) -> Change:
    return _changes.get(id(owner(array)), NEVER)


def mark_changed(array: np.ndarray, name: str) -> None:
    """Note that `name` has just written into the array's memory."""
    global last_change
    memory, before = owner(array), last_change_of(array)
    last_change, key = next(clock), id(memory)
    watch = (
        before.watch if before.changes else weakref.ref(memory, lambda _: _changes.pop(key, None))
    )
    _changes[key] = Change(last_change, name, before.changes + 1, watch)


def saved_arrays(vjps: Any) -> Iterator[np.ndarray]:
    """The arrays that VJPs hold, through closures, defaults, partials and containers."""
    stack, seen = [vjps], set()
    while stack:
        thing = stack.pop()
        if isinstance(thing, np.ndarray):
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
    """Raise if an array that a node saved was changed after it was recorded."""
    for array in saved_arrays(vjps):
        change = last_change_of(array)
        if change.time > order:
            raise RuntimeError(
                f"backward of '{name}' needs an array of shape {array.shape} that was modified by "
                f"an inplace operation since ('{change.name}', version {change.changes}): use the "
                f"operation that makes a new tensor, or clone() before the change"
            )
