"""Split backward: the gradients of inputs first (I), those of weights later (W), on their own.

How it works: on the way from the output to an input, a node is pulled only for the sources that
lead to that input. A twin of the node, with the same place in the order of the tape, keeps the
cotangent and the VJPs of the other sources. The second part walks back from these twins. Every sum
is added up in the order of an ordinary backward, so the bits are the same.
Source: Qi et al. 2023, "Zero Bubble Pipeline Parallelism", section 2.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import TYPE_CHECKING, Any

from ..kernels import arrays as xp
from .tape import Joint, Leaf, Node, behind, source, walk_back

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor

Split = tuple[list, Callable[[], list]]  # cotangents wanted now, and a function for the others


class WeightBackward:
    """The second part of a split backward; `backward()` fills the `grad` of the other leaves."""

    def __init__(self) -> None:
        self.roots: list[tuple[Node, xp.ndarray]] = []

    def pull(self, node: Node, cotangent: xp.ndarray, wanted: Container[Node | None]) -> list:
        """node.pull for the wanted sources; a twin of the node keeps the others for later."""
        now = [s is not None and s in wanted for s in node.sources]
        if all(n or s is None for n, s in zip(now, node.sources)):
            return node.pull(cotangent, wanted)
        node.check()
        with xp.beside(cotangent):
            first, rest = split_vjps(node.vjps, cotangent, now)
        twin = Node(node.name, [None if n else s for n, s in zip(now, node.sources)], ())
        twin.vjps = [Joint(lambda _: rest())]
        twin.order, twin.where = node.order, node.where
        self.roots.append((twin, cotangent))
        return first

    def backward(self) -> None:
        """Run the second part. Nothing that was kept for it stays."""
        roots, self.roots = self.roots, []
        walk_back(roots)


def backward_input(
    output: Node, cotangent: xp.ndarray, inputs: Sequence[Tensor] = ()
) -> WeightBackward:
    """The first part of a backward from `output`: fills the `grad` of `inputs`, which are leaves.

    Without inputs, the walk ends at the operations all of whose sources are leaves. Returns the
    second part.
    """
    later, targets = WeightBackward(), [source(x) for x in inputs]
    nodes = behind([output])
    if not inputs:
        targets = [n for n in nodes if not isinstance(n, Leaf) and _is_fed_by_leaves(n)]
    if not nodes.keys() & targets:  # no input was used
        later.roots.append((output, cotangent))
        return later
    roots: Any = [(output, cotangent)]
    walk_back(roots, targets=targets, pull=later.pull, pull_ends=True)  # type: ignore[arg-type]
    return later


def _is_fed_by_leaves(node: Node) -> bool:
    return all(s is None or isinstance(s, Leaf) for s in node.sources)


def split_vjps(vjps: Any, cotangent: xp.ndarray, now: Sequence[bool]) -> Split:
    """The cotangents of the inputs that are wanted now, and a function for the others.

    A Joint that cannot be split computes all of them at once.
    """
    if isinstance(vjps[0], Joint):
        if vjps[0].split is not None:
            return _in_order(vjps[0].split(cotangent, now), now)
        found = vjps[0](cotangent)
        kept = [None if n else g for n, g in zip(now, found)]
        return found, lambda: kept
    rest = [None if n else vjp for n, vjp in zip(now, vjps)]  # the others' arrays can be freed
    first = [vjp(cotangent) if n and vjp else None for n, vjp in zip(now, vjps)]
    return first, lambda: [vjp and vjp(cotangent) for vjp in rest]


def _in_order(made: Split, now: Sequence[bool]) -> Split:
    """Turn the split that an operation offers into the one that is wanted.

    An operation may compute an input's gradient late and a weight's early. What comes too early is
    kept; if something wanted now would come late, all is computed at once.
    """
    first, rest = made
    if any(n and g is None for n, g in zip(now, first)):
        first, rest = [a if b is None else b for a, b in zip(first, rest())], lambda: first
    early = [None if n else g for n, g in zip(now, first)]
    if all(g is None for g in early):
        return first, rest
    return first, lambda: [b if a is None else a for a, b in zip(early, rest())]
