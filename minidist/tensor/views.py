"""Views and changes in place: whose memory a tensor shares, and what its history is after a write.

As in PyTorch, a recorded write into a view is a write into the tensor that it is a view of: both
get a new history. Other views of that tensor notice when they are next used (their `seen` is
behind) and take theirs from it anew.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..autograd.modes import enable_grad, is_grad_enabled, is_inference_mode_enabled
from ..autograd.tape import INFERENCE, Node, new_node, source
from ..autograd.versions import owner
from ..kernels import arrays as xp

if TYPE_CHECKING:
    from .tensor import Tensor


class Recipe:
    """How a view is made of its parent: the operation and its arguments, without the parent itself.

    Applied to the parent's cotangent, it gives the view of that.
    """

    __slots__ = ("arguments", "function", "options", "place")

    def __init__(self, function: Callable, arguments: list, options: dict, place: int):
        self.function, self.arguments = function, arguments
        self.options, self.place = options, place

    def apply(self, parent: Any, operation: Callable | None = None) -> Any:
        """The view of an array; or of a tensor, by an operation on tensors."""
        arguments = list(self.arguments)
        arguments[self.place] = parent
        if operation is not None:
            return operation(*arguments, **self.options)
        return self.function(*arguments, **self.options)[0]


class View:
    """How a tensor was made of the memory of another one, `parent`."""

    __slots__ = ("operation", "parent", "recipe", "seen")

    def __init__(self, parent: Tensor, recipe: Recipe, operation: Callable):
        self.parent, self.recipe, self.operation = parent, recipe, operation
        self.seen = parent.history

    def stale(self) -> bool:
        view: View | None = self
        while view is not None:
            if view.parent.history != view.seen:
                return True
            view = view.parent.alias
        return False

    def refresh(self, tensor: Any) -> None:
        """Take the history from the parent, which was written to since."""
        with enable_grad():  # asked for its source, the parent is refreshed first
            fresh = self.recipe.apply(self.parent, self.operation)
        tensor.node, tensor.wants_grad = fresh.node, fresh.wants_grad
        tensor.history, self.seen = tensor.history + 1, self.parent.history


def note_view(
    output: Tensor, args: Sequence[Any], arrays: list, options: dict,
    function: Callable, operation: Callable,
) -> None:  # fmt: skip
    """If output's memory is that of an argument, note it as a view of that."""
    memory = owner(output.data)
    for place, (argument, array) in enumerate(zip(args, arrays)):
        if argument is not array and owner(array) is memory:
            arrays[place] = None  # held by what is changed in place later, it would be a cycle
            output.alias = View(argument, Recipe(function, arrays, options, place), operation)
            if output.node is None or output.node is INFERENCE:  # as the tensor that it views
                output.node = INFERENCE if argument.node is INFERENCE else None
            return


def refuse_leaf(x: Tensor, name: str) -> None:
    """Refuse writing to a leaf that requires grad, or to a view of one, outside no_grad().

    A tensor that was created in inference mode can be written to in inference mode only.
    """
    if x.node is INFERENCE and not is_inference_mode_enabled():
        raise RuntimeError(
            f"{name}: a tensor created in inference mode is being used in an in-place operation: "
            "write inside inference_mode(), or into a clone()"
        )
    what, tensor = "a leaf", x
    while is_grad_enabled():
        if tensor.requires_grad and tensor.is_leaf:
            raise RuntimeError(
                f"{name}: {what} that requires grad is being used in an in-place operation, which "
                "would lose its place in the graph: write inside no_grad(), or into a clone()"
            )
        if tensor.alias is None:
            return
        what, tensor = "a view of a leaf", tensor.alias.parent


def rewrite_history(x: Tensor, node: Node) -> None:
    """From now on x, and the part of what it is a view of, come from `node`."""
    keep = x.retains_grad
    if keep:
        x.node.hooks.retaining = None  # type: ignore[union-attr]
    x.node, x.wants_grad, x.history = node, True, x.history + 1
    if keep:
        x.retain_grad()
    if x.alias is not None:
        parent, recipe = x.alias.parent, x.alias.recipe

        def rest(g: xp.ndarray) -> xp.ndarray:
            g = xp.array(g, order="C")
            recipe.apply(g)[...] = 0
            return g

        whole = new_node("copy_slices", [source(parent), node], [rest, recipe.apply], parent.shape)
        rewrite_history(parent, whole)
        x.alias.seen = parent.history
