"""The recorded graph, walked and shown: as text, and as DOT for Graphviz."""

from __future__ import annotations

import functools
from collections.abc import Container, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from . import autograd

if TYPE_CHECKING:
    from .autograd import Node
    from .tensor import Tensor


class Joint(functools.partial):
    """Marks one function that returns the cotangents of all inputs at once, as a list.

    With `halves`, a function of the cotangent and of which inputs are wanted now, backward can be
    split there: see deferred.py.
    """

    halves: Any = None


def behind(roots: Iterable[Node]) -> dict[Node, int]:
    """Every node on the way back, with how often it feeds another one there."""
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
    """As behind, of those nodes alone from which a target is reached (or whose way was freed)."""
    uses: dict[Node, int] = {}
    for node in sorted(nodes, key=lambda n: n.order):  # sources come before what they feed
        feeds = [s for s in node.sources if s in uses]
        if feeds or node in targets or node.vjps is None:
            uses[node] = 0
        for s in feeds:
            uses[s] += 1
    return uses


def to_text(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """One line a node, inputs before what they feed: its number, operation, inputs and shape.

    `names`, such as dict(model.named_parameters()), are those of leaves; `·` stands for an
    input, before others, that wants no gradient.
    """
    nodes, titles = _numbered(tensor, names)
    lines = []
    for node, i in nodes.items():
        inputs = ["·" if s is None else f"%{nodes[s]}" for s in node.sources]
        while inputs and inputs[-1] == "·":  # options, mostly
            inputs.pop()
        call = titles[node] if _is_leaf(node) else f"{titles[node]}({', '.join(inputs)})"
        lines.append(f"%{i} = {call}  {node.shape}")
    return "\n".join(lines) + "\n"


def to_dot(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """The graph for `dot -Tsvg`: leaves as boxes, operations as ellipses, arrows as values flow."""
    nodes, titles = _numbered(tensor, names)
    lines = ["digraph {"]
    for node, i in nodes.items():
        label = f"{titles[node]}\n{node.shape}".replace("\\", "\\\\").replace('"', '\\"')
        label = label.replace("\n", "\\n")
        lines.append(f'  n{i} [label="{label}", shape={"box" if _is_leaf(node) else "ellipse"}];')
    for node, i in nodes.items():
        lines += [f"  n{nodes[s]} -> n{i};" for s in node.sources if s is not None]
    return "\n".join([*lines, "}"]) + "\n"


def _is_leaf(node: Node) -> bool:
    return node.name == "leaf"


def _numbered(tensor: Tensor, names: Mapping[str, Any] | None) -> tuple[dict, dict]:
    """Nodes by their first visit depth-first, inputs first; and what to call them."""
    root = autograd.source(tensor)
    if root is None:
        raise RuntimeError("there is no graph behind a tensor that does not require grad")
    called = {id(t.node): name for name, t in (names or {}).items() if t.node is not None}
    numbers: dict[Node, int] = {}
    stack = [(root, False)]
    while stack:
        node, finished = stack.pop()
        if finished:
            numbers[node] = len(numbers)
        elif node not in numbers:
            stack.append((node, True))
            stack += [(s, False) for s in reversed(node.sources) if s is not None]
    return numbers, {n: called.get(id(n), n.name) for n in numbers}
