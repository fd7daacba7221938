"""The tape: every recorded operation is a Node, and backward walks the Nodes in reverse.

Conventions that the rest of the engine relies on:
- an operation gives one VJP (vector-Jacobian product) for each of its inputs; a VJP takes the
  cotangent of the output and returns the cotangent of that input, of that input's shape;
- a VJP never writes into the cotangent that it is given: several operations may share it;
- what a VJP returns is its cotangent itself, a view, or a new array that nothing else keeps.
"""

from __future__ import annotations

import heapq
import weakref
from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from . import anomaly, modes, saved
from .graph import Joint as Joint
from .graph import behind, leading_to
from .kernels import arrays as np
from .kernels import halves
from .modes import detect_anomaly as detect_anomaly
from .modes import enable_grad as enable_grad
from .modes import is_grad_enabled as is_grad_enabled
from .modes import no_grad as no_grad
from .modes import set_detect_anomaly as set_detect_anomaly
from .modes import set_grad_enabled as set_grad_enabled

if TYPE_CHECKING:
    from .hooks import Watch
    from .tensor import Tensor

VJP = Callable[[np.ndarray], np.ndarray]


class Node:
    """One recorded operation: the sources of its inputs, and a VJP for each of them."""

    __slots__ = ("__weakref__", "name", "order", "shape", "sources", "vjps", "watch", "where")

    def __init__(self, name: str, sources: Sequence[Node | None], vjps: Any, shape: tuple = ()):
        self.name, self.sources, self.shape = name, sources, shape
        self.vjps: Any = vjps
        self.watch: Watch | None = None  # hooks, if there are any
        self.where = ""  # the line that called the operation, if anomalies are looked for
        self.order = next(saved.clock)

    def pull(self, cotangent: np.ndarray, wanted: Container[Node | None]) -> list:
        """The cotangents of the inputs; None for an input whose source is not wanted."""
        self.check()
        if np.gpu() is None:
            return self._pulled(cotangent, wanted)
        with np.beside(cotangent):
            return self._pulled(cotangent, wanted)

    def check(self) -> None:
        """Refuse the way back through what was freed, or changed in place since."""
        if self.vjps is None:
            raise RuntimeError(
                f"backward a second time through '{self.name}', whose saved arrays were freed "
                "by the first: pass retain_graph=True to the first backward"
            )
        if self.order < saved.last_change:
            saved.refuse_changed(self.name, self.order, self.vjps)

    def _pulled(self, cotangent: np.ndarray, wanted: Container[Node | None]) -> list:
        if isinstance(self.vjps[0], Joint):
            return self.vjps[0](cotangent)
        return [vjp(cotangent) if s in wanted else None for s, vjp in zip(self.sources, self.vjps)]

    def free(self) -> None:
        """Let go of the saved arrays and of the way back."""
        self.vjps, self.sources = None, ()

    def __repr__(self) -> str:
        return f"<{self.name} #{self.order}>"


class Leaf(Node):
    """The end of the way back: adds what arrives to a tensor's `grad`."""

    __slots__ = ("tensor",)

    def __init__(self, tensor: Tensor):
        super().__init__("leaf", (), (), tensor.shape)
        # The tensor holds this node: held in turn, it would wait for the garbage collector.
        self.tensor = weakref.ref(tensor)

    def accumulate(self, cotangent: np.ndarray, owned: bool) -> None:
        tensor = self.tensor()
        if tensor is not None:
            tensor.accumulate_grad(cotangent, owned)
            if self.watch is not None:
                self.watch.filled(tensor)


def source(value: Any) -> Node | None:
    """Where a value's cotangent goes: its operation, its leaf, or nowhere."""
    if not getattr(value, "requires_grad", False):
        return None
    if value.node is None:
        value.node = Leaf(value)
    return value.node


def record(name: str, output: Tensor, inputs: Sequence[Any], vjps: Sequence[VJP]) -> None:
    """Note on the tape how `output` was computed from `inputs`, if one of them wants gradients."""
    if modes.recording.get() is False:
        return
    sources = [source(x) for x in inputs]
    if any(sources) and vjps:
        if len(vjps) > 1:  # what only an unwanted VJP keeps is free to go
            vjps = [vjp if s else None for s, vjp in zip(sources, vjps)]  # type: ignore[misc]
        output.node = note(name, sources, vjps, output.data.shape)
        output.wants_grad = True


def note(name: str, sources: Sequence[Node | None], vjps: Any, shape: tuple) -> Node:
    """A new node, of which the recorder in whose block it arises is told."""
    if len(vjps) < len(sources) and any(sources[len(vjps) :]) and not isinstance(vjps[0], Joint):
        raise RuntimeError(f"'{name}' knows no gradient by some input: detach() that one first")
    node, recorder = Node(name, sources, vjps, shape), modes.recording.get()
    if recorder is not True and recorder is not False:
        recorder.add(node)
    return node


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
        self.held[node] = halves.added(old, new, out), True

    def pop(self, node: Node) -> tuple[np.ndarray, bool]:
        """The finished sum, after the hooks of its tensor."""
        held = self.held.pop(node)
        return held if node.watch is None else node.watch.arrived(*held)


def walk_back(
    roots: Sequence[tuple[Node, np.ndarray]], retain_graph: bool = False,
    targets: Sequence[Node] | None = None, capture: bool = False, later: Any = None,
) -> dict[Node, np.ndarray]:  # fmt: skip
    """Walk back from `roots` without recursion, each node once, the last recorded first.

    A node is pulled when the last of its uses has been; a leaf is filled at that moment, so what
    waits for a finished gradient need not wait for the end. Saved arrays are freed on the way
    unless `retain_graph`. With `targets`, only what leads to them is walked (what does not is left
    to `later`); with `capture`, what arrives there is returned instead of filling leaves.
    """
    uses, goal, cotangents = behind(n for n, _ in roots), set(targets or ()), _Cotangents()
    if targets is not None:
        uses = leading_to(goal, uses)
    pull = later.pull if later else Node.pull if modes.anomaly.get() == "off" else anomaly.pull
    found: dict[Node, np.ndarray] = {}
    for root, cotangent in roots:
        if root in uses:
            cotangents.add(root, cotangent, owned=False)
    ready = [(_turn(root), root) for root in cotangents.held if not uses[root]]
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
        if targets is not None and not later and node.vjps and not uses.keys() & node.sources:
            continue  # the end of the part that is walked: its saved arrays stay
        for target, g in zip(node.sources, pull(node, upstream, uses)):
            if target not in uses:
                continue
            assert g is not None, f"{node} gave no cotangent for an input that needs one"
            g = np.asarray(g)  # arithmetic on 0-d arrays gives scalars
            cotangents.add(target, g, owned=g.base is None and g is not upstream)
            uses[target] -= 1
            if not uses[target]:
                heapq.heappush(ready, (_turn(target), target))
        if not retain_graph:
            node.free()
    return found


def _turn(node: Node) -> int:
    """Leaves at once, in the order of their first use; then what was recorded last."""
    return node.order - (1 << 62) if isinstance(node, Leaf) else -node.order


from .gradients import backward, grad  # noqa: E402, F401  (they need what is above)
