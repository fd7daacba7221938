"""The recorded graph, walked and shown: as text, and as DOT for Graphviz."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .tape import Leaf, Node, source

if TYPE_CHECKING:
    from ..tensor.tensor import Tensor


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
        call = titles[node] if isinstance(node, Leaf) else f"{titles[node]}({', '.join(inputs)})"
        lines.append(f"%{i} = {call}  {node.shape}")
    return "\n".join(lines) + "\n"


def to_dot(tensor: Tensor, names: Mapping[str, Tensor] | None = None) -> str:
    """The graph for `dot -Tsvg`: leaves as boxes, operations as ellipses, arrows as values flow."""
    nodes, titles = _numbered(tensor, names)
    lines = ["digraph {"]
    for node, i in nodes.items():
        label = f"{titles[node]}\n{node.shape}".replace("\\", "\\\\").replace('"', '\\"')
        label = label.replace("\n", "\\n")
        lines.append(
            f'  n{i} [label="{label}", shape={"box" if isinstance(node, Leaf) else "ellipse"}];'
        )
    for node, i in nodes.items():
        lines += [f"  n{nodes[s]} -> n{i};" for s in node.sources if s is not None]
    return "\n".join([*lines, "}"]) + "\n"


def _numbered(tensor: Tensor, names: Mapping[str, Any] | None) -> tuple[dict, dict]:
    """Nodes by their first visit depth-first, inputs first; and what to call them."""
    root = source(tensor)
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
