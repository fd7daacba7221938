"""Activations counted: the bytes that a recorded graph keeps for backward, array by array.

What a formula says a layer keeps can be held against what our own tape holds.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..autograd.saved import saved_arrays
from ..autograd.tape import Leaf, Node, behind, source
from ..autograd.versions import owner
from ..kernels import arrays as xp
from ..nn import Parameter
from ..tensor.tensor import Tensor


def kept(output: Tensor) -> Iterator[tuple[str, xp.ndarray]]:
    """The arrays that the graph behind `output` keeps, each piece of memory once.

    Views are the memory that they look into, whole. Of several operations that keep the same, the
    first recorded one is named. Parameters are left out, for they are there without a graph too:
    those of a model that is still there, for a graph does not keep the tensors at its ends.
    """
    root = source(output)
    return kept_behind([root] if root else [])


def kept_behind(roots: Iterable[Node]) -> Iterator[tuple[str, xp.ndarray]]:
    """The same behind nodes of graphs, such as what is left of a backward after its first half."""
    nodes = sorted(behind(roots), key=lambda node: node.order)
    seen = {id(memory) for memory in _parameters(nodes)}
    for node in nodes:
        for array in saved_arrays(node.vjps):
            memory = owner(array)
            if id(memory) not in seen:
                seen.add(id(memory))
                yield node.name, memory


def saved_bytes(output: Tensor, real: int | None = None) -> dict[str, int]:
    """Bytes kept for backward by operation; `real` bytes for each floating number, if it is given.

    That is how arithmetic in 16 bits is counted where an operation widens to float32: as if it
    kept what it was given. All else (masks, packed masks, indices) counts as it is.

    >>> x = Tensor([1.0, 2.0], requires_grad=True)
    >>> saved_bytes((x * x).exp())  # x, and the result of exp
    {'mul': 8, 'exp': 8}
    """
    found: dict[str, int] = {}
    for name, memory in kept(output):
        width = real if real is not None and memory.dtype.kind == "f" else memory.itemsize
        found[name] = found.get(name, 0) + memory.size * width
    return found


def _parameters(nodes: list[Node]) -> Iterator[xp.ndarray]:
    for node in nodes:
        tensor = node.tensor() if isinstance(node, Leaf) else None
        if isinstance(tensor, Parameter):
            yield owner(tensor.data)
