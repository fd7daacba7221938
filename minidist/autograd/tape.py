"""The tape: every recorded operation is a Node, and backward walks the nodes in reverse.

How it works:
1. An operation computes its value and, for each input, a VJP (vector-Jacobian product): a function
   from the cotangent of the output to the cotangent of that input. `record` stores them in a Node.
2. A node's `sources` are the nodes that its inputs came from. A tensor that requires grad and was
   not computed has a Leaf. So the nodes form a graph that points from outputs to inputs.
3. `walk_back` starts at the roots with their cotangents. A node is pulled when all of its uses have
   been pulled: its cotangent is then complete, and its VJPs give the cotangents of its sources.
4. A leaf adds its complete cotangent to its tensor's `grad`.

What the rest of the engine relies on:
- a VJP returns a cotangent of its input's shape;
- a VJP never writes into the cotangent that it is given, since several operations may share it;
- a VJP returns that cotangent itself, a view, or a new array that nothing else keeps.
"""

from __future__ import annotations

import functools
import heapq
import weakref
from collections.abc import Callable, Container, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from ..kernels import arrays as xp
from . import modes
from .saved import saved_arrays
from .versions import owner, refuse_changed, versions

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor
    from .hooks import Hooks

VJP = Callable[[xp.ndarray], xp.ndarray]


class Joint(functools.partial):
    """One function that returns the cotangents of all inputs at once, as a list.

    `split`, if it is set, is a function (cotangent, wanted now) that returns the cotangents wanted
    now and a function for the others: backward can then be split here (see split.py).
    """

    split: Any = None


class Node:
    """One recorded operation: the sources of its inputs, and a VJP for each of them."""

    __slots__ = ("__weakref__", "hooks", "name", "order", "shape", "sources", "vjps", "where")

    def __init__(self, name: str, sources: Sequence[Node | None], vjps: Any, shape: tuple = ()):
        self.name, self.sources, self.shape = name, sources, shape
        self.vjps: Any = vjps  # one VJP for each source, or [Joint]; None once they are freed
        self.hooks: Hooks | None = None
        self.where = ""  # the line that called the operation, if anomalies are looked for
        self.order = versions.tick()

    def pull(self, cotangent: xp.ndarray, wanted: Container[Node | None]) -> list:
        """The cotangents of the inputs; None for an input whose source is not wanted."""
        self.check()
        if xp.gpu() is None:
            return self._pulled(cotangent, wanted)
        with xp.beside(cotangent):
            return self._pulled(cotangent, wanted)

    def check(self) -> None:
        """Refuse to use VJPs that were freed, or whose arrays were changed in place since."""
        if self.vjps is None:
            raise RuntimeError(
                f"backward a second time through '{self.name}', whose saved arrays were freed "
                "by the first: pass retain_graph=True to the first backward"
            )
        if self.order < versions.last_change:
            refuse_changed(self.name, self.order, self.vjps)

    def _pulled(self, cotangent: xp.ndarray, wanted: Container[Node | None]) -> list:
        if isinstance(self.vjps[0], Joint):
            return self.vjps[0](cotangent)
        return [vjp(cotangent) if s in wanted else None for s, vjp in zip(self.sources, self.vjps)]

    def free(self) -> None:
        """Drop the saved arrays and the sources."""
        self.vjps, self.sources = None, ()

    def __repr__(self) -> str:
        return f"<{self.name} #{self.order}>"


class Leaf(Node):
    """Where the walk back ends: adds the cotangent to the tensor's `grad`."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        super().__init__("leaf", (), (), tensor.shape)
        # The tensor holds this node: held in turn, it would wait for the garbage collector.
        self.tensor = weakref.ref(tensor)

    def accumulate(self, cotangent: xp.ndarray, owned: bool) -> None:
        """Add to `grad`; `owned`: nothing else keeps the array, so `grad` may be the array."""
        tensor = self.tensor()
        if tensor is not None:
            tensor.accumulate_grad(cotangent, owned)
            if self.hooks is not None:
                self.hooks.after_accumulate(tensor)


# The node of every tensor created in inference mode: a leaf that no walk may reach.
INFERENCE = Leaf.__new__(Leaf)
Node.__init__(INFERENCE, "inference", (), ())


# Recording


def source(value: Any) -> Node | None:
    """The node that gets the cotangent of a value: its operation's, its leaf, or None."""
    if not getattr(value, "requires_grad", False):
        return None
    if value.node is None:
        value.node = Leaf(value)
    elif value.node is INFERENCE:
        raise RuntimeError(
            "a tensor created in inference mode has no gradient: clone() it outside inference mode"
        )
    return value.node


def record(name: str, output: Tensor, inputs: Sequence[Any], vjps: Sequence[VJP]) -> None:
    """Note on the tape how `output` was computed from `inputs`, if one of them requires grad."""
    mode = modes.current()
    if mode.recording is False:
        if mode.inference:
            output.node = INFERENCE
        return
    sources = [source(x) for x in inputs]
    if any(sources) and vjps:
        if len(vjps) > 1:  # an array that only an unwanted VJP keeps can be freed
            vjps = [vjp if s else None for s, vjp in zip(sources, vjps)]  # type: ignore[misc]
        if modes.used_inference:
            _refuse_inference(name, inputs, vjps)
        output.node = new_node(name, sources, vjps, output.data.shape)
        output.wants_grad = True


def _refuse_inference(name: str, inputs: Sequence[Any], vjps: Any) -> None:
    """Refuse to save the array of a tensor that was created in inference mode."""
    made = {id(owner(x.data)) for x in inputs if getattr(x, "node", None) is INFERENCE}
    if made and any(id(owner(array)) in made for array in saved_arrays(vjps)):
        raise RuntimeError(
            f"{name} saves a tensor for backward that was created in inference mode: clone() that "
            "tensor outside inference mode, or create it under no_grad()"
        )


def new_node(name: str, sources: Sequence[Node | None], vjps: Any, shape: tuple) -> Node:
    """Create a node and report it to the active recorder, if there is one."""
    if len(vjps) < len(sources) and any(sources[len(vjps) :]) and not isinstance(vjps[0], Joint):
        raise RuntimeError(f"'{name}' knows no gradient by some input: detach() that one first")
    node, recorder = Node(name, sources, vjps, shape), modes.current().recording
    if recorder is not True and recorder is not False:
        recorder.add(node)
    return node


# Walking back


def behind(roots: Iterable[Node]) -> dict[Node, int]:
    """All nodes that the roots were computed from, and how often each is used by another one."""
    uses = dict.fromkeys(roots, 0)
    stack = list(uses)
    while stack:
        for node in stack.pop().sources:
            if node is None:
                continue
            if node not in uses:
                uses[node] = 0
                stack.append(node)
            uses[node] += 1
    return uses


def leading_to(targets: Container[Node], nodes: Iterable[Node]) -> dict[Node, int]:
    """As `behind`, but only the nodes that were computed from a target (or were freed)."""
    uses: dict[Node, int] = {}
    for node in sorted(nodes, key=lambda n: n.order):  # sources come before their users
        found = [s for s in node.sources if s in uses]
        if found or node in targets or node.vjps is None:
            uses[node] = 0
        for s in found:
            uses[s] += 1
    return uses


class _Cotangents:
    """Sums of cotangents, each with a flag: does nothing else keep this array?"""

    def __init__(self) -> None:
        self.sums: dict[Node, tuple[xp.ndarray, bool]] = {}

    def add(self, node: Node, new: xp.ndarray, owned: bool) -> None:
        if node not in self.sums:
            self.sums[node] = new, owned
            return
        old, old_owned = self.sums[node]
        # Adding into a shared array would change the numbers of another operation.
        out = old if old_owned else new if owned else None
        self.sums[node] = xp.asarray(xp.add(old, new, out=out)), True

    def pop(self, node: Node) -> tuple[xp.ndarray, bool]:
        """The complete sum, after the hooks of its tensor."""
        complete = self.sums.pop(node)
        return complete if node.hooks is None else node.hooks.on_cotangent(*complete)


def walk_back(
    roots: Sequence[tuple[Node, xp.ndarray]], retain_graph: bool = False,
    targets: Sequence[Node] | None = None, capture: bool = False,
    pull: Callable[..., list] = Node.pull, pull_ends: bool = False,
) -> dict[Node, xp.ndarray]:  # fmt: skip
    """Walk back from `roots`, each node once, the last recorded first, without recursion.

    A leaf is filled as soon as its last use has been pulled, so a hook that waits for a complete
    gradient need not wait for the end. Saved arrays are freed unless `retain_graph`.

    With `targets`, only the nodes between roots and targets are walked; with `capture`, the
    cotangents of the targets are returned and no leaf is filled. `pull` pulls a node (anomaly mode
    and split backward have their own). Nodes that have no source to walk are pulled only with
    `pull_ends`; otherwise they keep their saved arrays.
    """
    uses, goal, cotangents = behind(n for n, _ in roots), set(targets or ()), _Cotangents()
    if targets is not None:
        uses = leading_to(goal, uses)
    found: dict[Node, xp.ndarray] = {}
    for root, cotangent in roots:
        if root in uses:
            cotangents.add(root, cotangent, owned=False)
    ready = [(_turn(root), root) for root in cotangents.sums if not uses[root]]
    heapq.heapify(ready)
    while ready:
        node = heapq.heappop(ready)[1]
        upstream, owned = cotangents.pop(node)
        if capture and node in goal:
            found[node] = upstream if owned else upstream.copy()
        if isinstance(node, Leaf):
            if not capture:
                node.accumulate(upstream, owned)
            continue
        if targets is not None and not pull_ends and node.vjps and not uses.keys() & node.sources:
            continue
        for target, g in zip(node.sources, pull(node, upstream, uses)):
            if target not in uses:
                continue
            assert g is not None, f"{node} gave no cotangent for an input that needs one"
            g = xp.asarray(g)  # arithmetic on 0-d arrays gives scalars
            cotangents.add(target, g, owned=g.base is None and g is not upstream)
            uses[target] -= 1
            if not uses[target]:
                heapq.heappush(ready, (_turn(target), target))
        if not retain_graph:
            node.free()
    return found


def _turn(node: Node) -> int:
    """Leaves first, in the order of their first use; then the node that was recorded last."""
    return node.order - (1 << 62) if isinstance(node, Leaf) else -node.order
