"""The arrays that VJPs save for backward: found, or replaced until backward needs them.

How it works:
1. A VJP is a Python function. It saves arrays simply by using them: they lie in the cells of its
   closure, in its default arguments, in partials, and in lists, tuples and dicts inside these.
2. `map_saved(vjps, f)` walks through all of them and puts f(x) in the place of every array x. What
   cannot be written to (a tuple, a partial) is made anew.
3. `saved_arrays(vjps)` is the same walk, and replaces nothing.

PyTorch calls this saved_tensors_hooks: `f` packs an array into a `Packed` object, and later unpacks
it. ZeRO-3 needs it, because a weight that a VJP keeps cannot be freed. Writing into cells is a
trick, and worth it: the plain way to keep no weights, which computes each unit's forward again in
backward (checkpoint), makes a whole training step of ZeRO-3 slower by 31 %, and this walk by 1.7 %
(processor time of the GPT of benchmarks/gpt.py; see `benchmarks/zero.py --recompute`).
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable
from typing import Any

from ..kernels import arrays as xp


class Packed:
    """Something in the place of a saved array, from which the array can be had again."""

    __array_ufunc__ = None  # NumPy's arithmetic refuses it instead of making an object array


def saved_arrays(vjps: Any) -> list[xp.ndarray]:
    """The arrays that VJPs save, each once."""
    found: dict[int, xp.ndarray] = {}
    map_saved(vjps, lambda x: x if isinstance(x, Packed) else found.setdefault(id(x), x))
    return list(found.values())


def map_saved(thing: Any, f: Callable[[Any], Any], seen: set[int] | None = None) -> Any:
    """Put f(x) in the place of every array and Packed in a VJP or a list of VJPs."""
    seen = set() if seen is None else seen
    if isinstance(thing, xp.ndarray | Packed):
        return f(thing)
    if id(thing) in seen:
        return thing
    seen.add(id(thing))
    inside = functools.partial(map_saved, f=f, seen=seen)
    if isinstance(thing, types.FunctionType):
        _map_in_function(thing, inside)
    elif isinstance(thing, list | dict):
        for key, old in list(enumerate(thing) if isinstance(thing, list) else thing.items()):
            if (new := inside(old)) is not old:
                thing[key] = new
    elif isinstance(thing, tuple):
        new_items = [inside(x) for x in thing]
        if any(a is not b for a, b in zip(new_items, thing)):
            return getattr(type(thing), "_make", type(thing))(new_items)
    elif isinstance(thing, functools.partial):
        args, options = inside(thing.args), inside(dict(thing.keywords))
        if args is not thing.args or any(options[k] is not v for k, v in thing.keywords.items()):
            return type(thing)(thing.func, *args, **options)
        inside(thing.func)
    return thing


def _map_in_function(function: types.FunctionType, inside: Callable[[Any], Any]) -> None:
    for cell in function.__closure__ or ():
        try:
            old = cell.cell_contents
        except ValueError:  # a name that was never given a value
            continue
        if (new := inside(old)) is not old:
            cell.cell_contents = new
    defaults = function.__defaults__
    if defaults and (new := inside(defaults)) is not defaults:
        function.__defaults__ = new
