"""FlatParameter: parameters of one dtype joined end to end and cut into one shard a rank.

Shapes: N is the number of elements of all its parameters together, n that of this rank's shard.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from ...autograd.versions import owner
from ...comm import Communicator, Request, all_gather, ireduce_scatter, shard_bounds
from ...kernels import arrays as xp
from ...kernels.half_precision import as_dtype, sum_dtype
from ...nn import Parameter
from ...tensor.tensor import Tensor


@dataclass
class Piece:
    """The elements of one parameter that lie in this rank's shard."""

    param: Parameter  # the model's
    part: slice  # which of its elements
    at: slice  # where they are in the shard
    own: Parameter  # these elements as a view of the shard: the optimiser updates this parameter


class FlatParameter:
    """Parameters that are sent together. Shards differ by one element at most: nothing is padded.

    A shard begins and ends anywhere, also in the middle of a parameter. It is a view of the full
    array, or a copy if it must outlive the full array (`copy_shard`).
    """

    def __init__(
        self, name: str, params: list[Parameter], comm: Communicator, copy_shard: bool = False
    ):  # fmt: skip
        self.name, self.params, self.comm = name, params, comm
        self.shapes = [p.shape for p in params]
        self.edges = list(accumulate((p.numel() for p in params), initial=0))
        bounds = shard_bounds(self.edges[-1], comm.size)
        self.counts = [b - a for a, b in bounds]
        self.start, self.stop = bounds[comm.rank]
        full = xp.concatenate([p.data.reshape(-1) for p in params])  # (N,)
        self.use(full)
        local = full[self.start : self.stop]  # (n,)
        self.shard = local.copy() if copy_shard else local
        self.pieces = list(self._pieces())
        self.grad: xp.ndarray | None = None  # (n,), summed over the ranks

    def _pieces(self) -> Iterator[Piece]:
        for p, (first, last) in zip(self.params, pairwise(self.edges)):
            a, b = max(first, self.start), min(last, self.stop)
            if a < b:
                at = slice(a - self.start, b - self.start)
                own = Parameter(Tensor.of(self.shard[at]))
                yield Piece(p, slice(a - first, b - first), at, own)

    def views(self, full: xp.ndarray) -> Iterator[tuple[Parameter, xp.ndarray]]:
        """Each parameter with its view of a full array (N,), in its own shape."""
        return zip(self.params, xp.cut(full, self.shapes))

    def use(self, full: xp.ndarray) -> None:
        """Make the parameters views of a full array (N,)."""
        self.full: xp.ndarray | None = full
        for p, view in self.views(full):
            p.data = view

    def gather(self, local: xp.ndarray, label: str = "") -> xp.ndarray:
        """All ranks' shards, joined: (n,) -> (N,)."""
        return all_gather(self.comm, local, self.counts, label=f"{label}/{self.name}")

    # Gradients

    def start_reducing(self, algorithm: str, op: str = "sum") -> Request:
        """Start to sum (or average) gradients over ranks; the request returns this shard (n,)."""
        return ireduce_scatter(
            self.comm, self._joined_gradients(), op, algorithm, counts=self.counts,
            label=f"gradient/{self.name}",
        )  # fmt: skip

    def _joined_gradients(self) -> xp.ndarray:
        """(N,), with zeros where this rank computed none, so that all ranks send the same."""
        dtype = sum_dtype(self.shard.dtype)  # no message can add up bfloat16
        flat = xp.empty_like(self.shard, dtype, shape=self.edges[-1])
        for p, view in self.views(flat):
            view[...] = 0 if p.grad is None else as_dtype(p.grad.data, dtype)
        return flat

    def add_gradient(self, summed: xp.ndarray) -> None:
        """Add a summed shard (n,) to the gradient of the shard."""
        summed = as_dtype(summed, self.shard.dtype)
        self.grad = summed if self.grad is None else xp.add(self.grad, summed, out=self.grad)
        for piece in self.pieces:
            piece.own.grad = Tensor.of(self.grad[piece.at])

    def overwrite_gradient(self, summed: xp.ndarray) -> None:
        """Write a summed shard (n,) over this rank's elements of the local gradients."""
        for piece in self.pieces:
            p = piece.param
            g = xp.zeros_like(p.data) if p.grad is None else xp.ascontiguousarray(p.grad.data)
            p.grad = Tensor.of(g)
            stretch = g.reshape(-1)[piece.part]
            stretch[...] = summed[piece.at]
            piece.own.grad = Tensor.of(stretch)

    def drop_gradient(self) -> None:
        self.grad = None
        for tensor in (*self.params, *(piece.own for piece in self.pieces)):
            tensor.grad = None


def bytes_in(arrays: Iterable[Any]) -> int:
    """Bytes of the memory that the arrays are views of, each piece of memory once."""
    return sum({id(m): m.nbytes for m in (owner(a) for a in arrays)}.values())


def bytes_by_use(
    tensors: Iterable[Tensor], state: Mapping[Any, dict[str, Any]],
    shards: Iterable[xp.ndarray] = (),
) -> dict[str, int]:  # fmt: skip
    """Bytes of parameters, of their gradients, and of an optimiser's state.

    `shards`: further memory of parameters. A view counts as the memory that it is a view of, once.
    """
    tensors = list(tensors)
    grads = [t.grad.data for t in tensors if t.grad is not None]
    states = [v for of in state.values() for v in of.values() if isinstance(v, xp.ndarray)]
    return {
        "parameters": bytes_in([*(t.data for t in tensors), *shards]),
        "gradients": bytes_in(grads),
        "optimizer": bytes_in(states),
    }
