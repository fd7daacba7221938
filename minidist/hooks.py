"""Hooks on gradients: called when a cotangent, or a leaf's whole gradient, is complete."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from . import modes
from .array import name_of
from .autograd import Node
from .kernels import arrays as np
from .tensor import Tensor

_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook returns: remove() it, or leave a `with` block."""

    def __init__(self, hooks: dict[int, Callable], hook: Callable):
        self.hooks, self.number = hooks, next(_numbers)
        hooks[self.number] = hook

    def remove(self) -> None:
        self.hooks.pop(self.number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Watch:
    """What is to be called for a node: hooks on its cotangent, hooks on a filled leaf."""

    def __init__(self) -> None:
        self.hooks: dict[int, Callable] = {}
        self.after: dict[int, Callable] = {}
        self.kept: weakref.ref[Any] | None = None  # an inner tensor that retains its grad

    def arrived(self, cotangent: np.ndarray, owned: bool) -> tuple[np.ndarray, bool]:
        """The cotangent as the hooks leave it; what they have seen may be kept by them."""
        with modes.no_grad():
            for hook in tuple(self.hooks.values()):
                new = hook(Tensor.of(_read_only(cotangent)))
                cotangent, owned = _replaced(cotangent, new), False
        tensor = None if self.kept is None else self.kept()
        if tensor is not None:
            tensor.accumulate_grad(cotangent, owned=False)
        return cotangent, owned

    def filled(self, leaf: Tensor) -> None:
        with modes.no_grad():
            for hook in tuple(self.after.values()):
                hook(leaf)


def watch(node: Node) -> Watch:
    """The node's watch, made when it is first asked for."""
    if node.watch is None:
        node.watch = Watch()
    return node.watch


def _read_only(array: np.ndarray) -> np.ndarray:
    view = array.view()
    if not np.on_gpu(view):  # CuPy's arrays cannot be told
        view.flags.writeable = False
    return view


def _replaced(old: np.ndarray, new: Any) -> np.ndarray:
    if new is None:
        return old
    if not isinstance(new, Tensor):
        raise TypeError(f"a gradient hook returns a Tensor or None, not {type(new).__name__}")
    if new.shape != old.shape or new.dtype != old.dtype:
        raise RuntimeError(
            f"a gradient hook returned {name_of(new.dtype)} {new.shape} for a gradient that is "
            f"{name_of(old.dtype)} {old.shape}"
        )
    return new.data
