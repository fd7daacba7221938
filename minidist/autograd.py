"""The tape: every recorded operation is a Node, and backward walks the Nodes in reverse.

Conventions that the rest of the engine relies on:
- an operation gives one VJP (vector-Jacobian product) for each of its inputs; a VJP takes the
  cotangent of the output and returns the cotangent of that input, of that input's shape;
- a VJP never writes into the cotangent that it is given: several operations may share it;
- what a VJP returns is its cotangent itself, a view, or a new array that nothing else keeps.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .tensor import Tensor

VJP = Callable[[np.ndarray], np.ndarray]

_recording: ContextVar[bool] = ContextVar("recording", default=True)
_order = itertools.count()


class Node:
    """One recorded operation: the sources of its inputs, and a VJP for each of them."""

    __slots__ = ("name", "order", "sources", "vjps")

    def __init__(self, name: str, sources: Sequence[Node | None], vjps: Sequence[VJP]):
        self.name, self.sources = name, tuple(sources)
        self.vjps: Sequence[VJP] | None = vjps
        self.order = next(_order)

    def pull(self, cotangent: np.ndarray) -> list[np.ndarray | None]:
        """The cotangents of the inputs; None for an input that needs none."""
        if self.vjps is None:
            raise RuntimeError(
                f"backward a second time through '{self.name}', whose saved arrays were freed "
                "by the first: pass retain_graph=True to the first backward"
            )
        if isinstance(self.vjps[0], Joint):
            return self.vjps[0](cotangent)
        return [vjp(cotangent) if s else None for s, vjp in zip(self.sources, self.vjps)]

    def free(self) -> None:
        """Let go of the saved arrays and of the way back."""
        self.vjps, self.sources = None, ()

    def __repr__(self) -> str:
        return f"<{self.name} #{self.order}>"


class Joint:
    """Marks one function that returns the cotangents of all inputs at once, as a list."""

    def __init__(self, function: Callable[[np.ndarray], list[np.ndarray | None]]):
        self.function = function

    def __call__(self, cotangent: np.ndarray) -> Any:
        return self.function(cotangent)


class Leaf(Node):
    """The end of the way back: adds what arrives to a tensor's `grad`."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        super().__init__("leaf", (), ())
        # The tensor holds this node: held in turn, it would wait for the garbage collector.
        self.tensor = weakref.ref(tensor)

    def accumulate(self, cotangent: np.ndarray, owned: bool) -> None:
        tensor = self.tensor()
        if tensor is not None:
            tensor.accumulate_grad(cotangent, owned)


@contextlib.contextmanager
def _recording_set_to(value: bool) -> Iterator[None]:
    token = _recording.set(value)
    try:
        yield
    finally:
        _recording.reset(token)


def no_grad() -> contextlib._GeneratorContextManager[None]:
    """Record nothing inside (a context manager or decorator), as torch.no_grad."""
    return _recording_set_to(False)


def enable_grad() -> contextlib._GeneratorContextManager[None]:
    """Record again inside a no_grad block, as torch.enable_grad."""
    return _recording_set_to(True)


def is_grad_enabled() -> bool:
    return _recording.get()


def source(value: Any) -> Node | None:
    """Where a value's cotangent goes: its operation, its leaf, or nowhere."""
    if not getattr(value, "requires_grad", False):
        return None
    if value.node is None:
        value.node = Leaf(value)
    return value.node


def record(name: str, output: Tensor, inputs: Sequence[Any], vjps: Sequence[VJP]) -> None:
    """Note on the tape how `output` was computed from `inputs`, if one of them wants gradients."""
    if not _recording.get():
        return
    sources = [source(x) for x in inputs]
    if any(sources):
        output.node, output.requires_grad = Node(name, sources, vjps), True


def _count_uses(root: Node) -> dict[Node, int]:
    """How often each node on the way back from `root` feeds another one on it."""
    uses, stack = {root: 0}, [root]
    while stack:
        for node in stack.pop().sources:
            if node is None:
                continue
            if node not in uses:
                uses[node] = 0
                stack.append(node)
            uses[node] += 1
    return uses


class _Cotangents:
    """Sums of cotangents on their way, each with a note whether we alone hold the array."""

    def __init__(self) -> None:
        self.held: dict[Node, tuple[np.ndarray, bool]] = {}

    def add(self, node: Node, new: np.ndarray, owned: bool) -> None:
        if node not in self.held:
            self.held[node] = new, owned
            return
        old, old_owned = self.held[node]
        # Adding into an array that is shared would change a stranger's numbers.
        out = old if old_owned else new if owned else None
        self.held[node] = np.asarray(np.add(old, new, out=out)), True

    def pop(self, node: Node) -> tuple[np.ndarray, bool]:
        return self.held.pop(node)


def backward(root: Node, cotangent: np.ndarray, retain_graph: bool = False) -> None:
    """Add to every leaf behind `root` its part of the cotangent, without recursion.

    A node is pulled when the last of its uses has been; a leaf is filled at that moment, so
    what waits for a finished gradient need not wait for the end. Saved arrays are freed on
    the way unless `retain_graph`.
    """
    uses, cotangents, ready = _count_uses(root), _Cotangents(), [(-root.order, root)]
    cotangents.add(root, cotangent, owned=False)
    while ready:
        node = heapq.heappop(ready)[1]
        upstream, owned = cotangents.pop(node)
        if isinstance(node, Leaf):
            node.accumulate(upstream, owned)
            continue
        finished = []
        for target, g in zip(node.sources, node.pull(upstream)):
            if target is None:
                continue
            assert g is not None, f"{node} gave no cotangent for an input that needs one"
            g = np.asarray(g)  # arithmetic on 0-d arrays gives scalars
            cotangents.add(target, g, owned=g.base is None and g is not upstream)
            uses[target] -= 1
            if not uses[target]:
                finished.append(target)
        if not retain_graph:
            node.free()
        for target in finished:
            if isinstance(target, Leaf):
                target.accumulate(*cotangents.pop(target))
            else:
                heapq.heappush(ready, (-target.order, target))
