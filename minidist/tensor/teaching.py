"""Errors that teach: what is said where a tensor must stand and something else does.

A function on tensors asks its arguments for .shape, .dtype or .data at once. Of a number, None, a
list or an array that is an AttributeError, from which it is found which argument it was: calls
that are right pay for no check.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from ..kernels import arrays as xp
from .tensor import Tensor


def teaching(function: Callable[..., Any]) -> Callable[..., Any]:
    """As function, with an error that names the argument that is no tensor, but must be one.

    A function with the attribute `teaches` says so itself, and stays as it is.
    """
    if hasattr(function, "teaches"):
        return function
    name = function.__name__

    @functools.wraps(function)
    def taught(*args: Any, **options: Any) -> Any:
        try:
            return function(*args, **options)
        except AttributeError as error:
            want_other(name, error, args, options)
            raise

    taught.teaches = True  # type: ignore[attr-defined]
    return taught


def want_other(name: str, error: AttributeError, args: tuple, options: dict) -> None:
    """Refuse the argument that has not what only a tensor has, if the error is of one."""
    for place, value in (*enumerate(args), *options.items()):
        if _lacks(value, error.obj):
            given = repr(value) if len(repr(value)) < 60 else f"of type {type(value).__name__}"
            raise TypeError(
                f"{name}: argument {place} is {given}: want a Tensor, md.tensor() makes one"
            ) from None


def _lacks(value: Any, found: Any) -> bool:
    """Whether the error is of this argument, or of an element of it; of an array, of its memory."""
    if isinstance(value, xp.ndarray):
        return isinstance(found, memoryview | xp.ndarray)
    elements = value if isinstance(value, list | tuple) else ()
    return not isinstance(found, Tensor) and any(v is found for v in (value, *elements))
