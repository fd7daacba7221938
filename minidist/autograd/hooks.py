"""Hooks on gradients: called when a cotangent, or the whole gradient of a leaf, is complete."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable
from typing import Any

from ..kernels import arrays as xp
from . import modes
from .tape import Node

_numbers = itertools.count()


class RemovableHandle:
    """What registering a hook returns: remove() it, or leave a `with` block."""

    def __init__(self, hooks: dict[int, Callable], hook: Callable):
        self.hooks, self.number = hooks, next(_numbers)
        hooks[self.number] = hook

    def remove(self) -> None:
        """Unregister the hook."""
        self.hooks.pop(self.number, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *error: object) -> None:
        self.remove()


class Hooks:
    """The hooks of one node."""

    def __init__(self) -> None:
        self.before: dict[int, Callable] = {}  # array -> array: of the complete cotangent
        self.after: dict[int, Callable] = {}  # leaf -> None: once its grad was added to
        self.retaining: weakref.ref[Any] | None = None  # an inner tensor that retains its grad

    def on_cotangent(self, cotangent: xp.ndarray, owned: bool) -> tuple[xp.ndarray, bool]:
        """The cotangent that the hooks return; a hook may keep the array that it was given."""
        with modes.no_grad():
            for hook in tuple(self.before.values()):
                cotangent, owned = hook(cotangent), False
        tensor = None if self.retaining is None else self.retaining()
        if tensor is not None:
            tensor.accumulate_grad(cotangent, owned=False)
        return cotangent, owned

    def after_accumulate(self, leaf: Any) -> None:
        """Call the hooks of a leaf whose grad was just added to."""
        with modes.no_grad():
            for hook in tuple(self.after.values()):
                hook(leaf)


def hooks_of(node: Node) -> Hooks:
    """The node's hooks, created when they are first asked for."""
    if node.hooks is None:
        node.hooks = Hooks()
    return node.hooks
