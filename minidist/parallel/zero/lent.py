"""Weights that backward needs but must not keep: taken out of the tape, and lent to it again.

The VJPs of a node hold the arrays that they need. Those that lie in memory which is to be freed are
replaced, in the cells of the closures, by a note of where they lay; before the node is pulled, by
the same view of the memory that was gathered anew.
"""

from __future__ import annotations

import functools
import math
import types
from collections.abc import Callable
from typing import Any

import numpy

from ...autograd.versions import owner
from ...kernels import arrays as xp


class Lent:
    """In the place of an array that is not there: whose it was, and where in that it lay."""

    __array_ufunc__ = None  # NumPy's arithmetic refuses it instead of making an object array

    def __init__(self, lender: Any, whole: xp.ndarray, array: xp.ndarray):
        self.lender, self.shape, self.strides = lender, array.shape, array.strides
        self.dense = array.flags.c_contiguous
        self.first = (address(array) - address(whole)) // whole.itemsize

    def found_in(self, whole: xp.ndarray) -> xp.ndarray:
        """The same view of another array."""
        if self.dense:
            return whole[self.first : self.first + math.prod(self.shape)].reshape(self.shape)
        library: Any = xp.gpu() if xp.on_gpu(whole) else numpy
        view = library.lib.stride_tricks.as_strided
        return view(whole[self.first :], self.shape, self.strides)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
        raise RuntimeError(f"a weight of shape {self.shape} is used, but it was freed: gather it")


def address(array: xp.ndarray) -> int:
    return array.data.ptr if xp.on_gpu(array) else array.__array_interface__["data"][0]


def lies_in(array: xp.ndarray, whole: xp.ndarray | None) -> bool:
    """Whether a view of `whole` can be made of its shape and strides."""
    return whole is not None and owner(array) is owner(whole) and array.dtype == whole.dtype


def exchange(thing: Any, swap: Callable[[Any], Any], seen: set[int] | None = None) -> Any:
    """Put swap(x) in the place of every array and Lent in a VJP or a list of VJPs.

    Through closures, defaults, partials and containers; what cannot be written to is made anew.
    """
    seen = set() if seen is None else seen
    if isinstance(thing, xp.ndarray | Lent):
        return swap(thing)
    if id(thing) in seen:
        return thing
    seen.add(id(thing))
    inside = functools.partial(exchange, swap=swap, seen=seen)
    if isinstance(thing, types.FunctionType):
        _exchange_in_function(thing, inside)
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


def _exchange_in_function(function: types.FunctionType, inside: Callable[[Any], Any]) -> None:
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
