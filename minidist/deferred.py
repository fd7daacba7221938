"""Backward in two halves: the gradients of inputs now, those of weights later, on their own.

A node on the way from the output to an input is pulled for the sources that lead there; a late
node, in its place in the order of the tape, keeps the cotangent and the VJPs of its other sources.
The second half walks back from the late nodes: every sum is added up in the order of a backward in
one go, so the bits are the same. (Qi et al. 2023, "Zero Bubble Pipeline Parallelism", 2.)
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from typing import Any

from .autograd import Leaf, Node, source, walk_back
from .graph import Joint, behind
from .kernels import arrays as np
from .tensor import Tensor

Halves = tuple[list, Callable[[], list]]


class Deferred:
    """What is left of a backward; its `backward()` fills the `grad` of the leaves it leads to."""

    def __init__(self) -> None:
        self.late: list[tuple[Node, np.ndarray]] = []

    def pull(self, node: Node, cotangent: np.ndarray, wanted: Container[Node | None]) -> list:
        """node.pull, of whose sources those that are not wanted are kept for later."""
        now = [s is not None and s in wanted for s in node.sources]
        if all(n or s is None for n, s in zip(now, node.sources)):
            return node.pull(cotangent, wanted)
        node.check()
        with np.beside(cotangent):
            first, rest = halves(node.vjps, cotangent, now)
        late = Node(node.name, [None if n else s for n, s in zip(now, node.sources)], ())
        late.vjps = [Joint(lambda _: rest())]
        late.order, late.where = node.order, node.where
        self.late.append((late, cotangent))
        return first

    def backward(self) -> None:
        """The second half. What was kept for it is free afterwards."""
        roots, self.late = self.late, []
        walk_back(roots)


def halves(vjps: Any, cotangent: np.ndarray, now: Sequence[bool]) -> Halves:
    """The cotangents of the inputs that are wanted now, and a function for the others.

    A Joint that cannot be split computes all of them at once.
    """
    if isinstance(vjps[0], Joint):
        if vjps[0].halves is not None:
            return _put_right(vjps[0].halves(cotangent, now), now)
        found = vjps[0](cotangent)
        kept = [None if n else g for n, g in zip(now, found)]
        return found, lambda: kept
    rest = [None if n else vjp for n, vjp in zip(now, vjps)]  # the others' arrays are free to go
    first = [vjp(cotangent) if n and vjp else None for n, vjp in zip(now, vjps)]
    return first, lambda: [vjp and vjp(cotangent) for vjp in rest]


def _put_right(made: Halves, now: Sequence[bool]) -> Halves:
    """Halves as an operation has them, as they are wanted: a weight may be computed, an input not.

    What is there too early is kept; if something is wanted early, all is computed at once.
    """
    first, rest = made
    if any(n and g is None for n, g in zip(now, first)):
        first, rest = [a if b is None else b for a, b in zip(first, rest())], lambda: first
    early = [None if n else g for n, g in zip(now, first)]
    if all(g is None for g in early):
        return first, rest
    return first, lambda: [b if a is None else a for a, b in zip(early, rest())]


def backward_input(output: Node, cotangent: np.ndarray, inputs: Sequence[Tensor] = ()) -> Deferred:
    """The first half of a backward from `output`: fills the `grad` of `inputs`, which are leaves.

    Without inputs it goes down to the operations that only leaves feed. Returns the second half.
    """
    later, targets = Deferred(), [source(x) for x in inputs]
    nodes = behind([output])
    if not inputs:
        targets = [n for n in nodes if not isinstance(n, Leaf) and _only_leaves_feed(n)]
    if not nodes.keys() & targets:  # no way leads there
        later.late.append((output, cotangent))
        return later
    walk_back([(output, cotangent)], targets=targets, later=later)  # type: ignore[arg-type]
    return later


def _only_leaves_feed(node: Node) -> bool:
    return all(s is None or isinstance(s, Leaf) for s in node.sources)
