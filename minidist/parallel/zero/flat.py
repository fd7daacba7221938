"""Parameters of one dtype joined end to end, of which each rank owns one stretch: its shard."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from ...autograd.versions import owner
from ...comm import Communicator, Request, all_gather, ireduce_scatter, shard_bounds
from ...kernels import arrays as xp
from ...kernels.halves import as_dtype, sum_dtype, wide
from ...nn import Parameter
from ...tensor.tensor import Tensor

BLOCK = 1 << 14  # elements whose squares are added at once


@dataclass
class Piece:
    """The part of one parameter that lies in this rank's shard."""

    param: Parameter  # the model's
    part: slice  # which of its elements
    at: slice  # where they are in the shard
    own: Parameter  # these elements, a view of the shard: what the optimiser updates


class Flat:
    """Parameters that travel together. Shards differ by one element at most: nothing is padded.

    A shard begins and ends anywhere, in the middle of a parameter too. It is a view of the whole,
    or its own memory if it is to outlive that (`alone`).
    """

    def __init__(self, name: str, params: list[Parameter], comm: Communicator, alone: bool = False):
        self.name, self.params, self.comm = name, params, comm
        self.shapes = [p.shape for p in params]
        self.edges = list(accumulate((p.numel() for p in params), initial=0))
        bounds = shard_bounds(self.edges[-1], comm.size)
        self.counts = [b - a for a, b in bounds]
        self.start, self.stop = bounds[comm.rank]
        whole = xp.concatenate([p.data.reshape(-1) for p in params])
        self.spread(whole)
        mine = whole[self.start : self.stop]
        self.shard = mine.copy() if alone else mine
        self.pieces = list(self._pieces())
        self.grad: xp.ndarray | None = None  # of the shard, summed over the ranks

    def _pieces(self) -> Iterator[Piece]:
        for p, (first, last) in zip(self.params, pairwise(self.edges)):
            a, b = max(first, self.start), min(last, self.stop)
            if a < b:
                at = slice(a - self.start, b - self.start)
                own = Parameter(Tensor.of(self.shard[at]))
                yield Piece(p, slice(a - first, b - first), at, own)

    def parts(self, whole: xp.ndarray) -> Iterator[tuple[Parameter, xp.ndarray]]:
        """Each parameter with its part of a joined array, in its own shape."""
        for p, shape, (a, b) in zip(self.params, self.shapes, pairwise(self.edges)):
            yield p, whole[a:b].reshape(shape)

    def spread(self, whole: xp.ndarray) -> None:
        """Make the parameters views of a joined array."""
        self.whole: xp.ndarray | None = whole
        for p, part in self.parts(whole):
            p.data = part

    def gather(self, mine: xp.ndarray, label: str = "") -> xp.ndarray:
        """Every rank's stretch, joined."""
        return all_gather(self.comm, mine, self.counts, label=f"{label}/{self.name}")

    # Gradients

    def start_reducing(self, algorithm: str) -> Request:
        """A request for this rank's stretch of the sum of all ranks' gradients."""
        return ireduce_scatter(
            self.comm, self._joined_gradients(), algorithm=algorithm, counts=self.counts,
            label=f"gradient/{self.name}",
        )  # fmt: skip

    def _joined_gradients(self) -> xp.ndarray:
        """Zeros where this rank computed none, so that all ranks send the same."""
        dtype = sum_dtype(self.shard.dtype)  # a sum over many ranks needs more than 8 bits
        flat = xp.empty_like(self.shard, dtype, shape=self.edges[-1])
        for p, part in self.parts(flat):
            part[...] = 0 if p.grad is None else as_dtype(p.grad.data, dtype)
        return flat

    def add_gradient(self, mine: xp.ndarray) -> None:
        """Add a summed stretch to the gradient of the shard."""
        mine = as_dtype(mine, self.shard.dtype)
        self.grad = mine if self.grad is None else xp.add(self.grad, mine, out=self.grad)
        for piece in self.pieces:
            piece.own.grad = Tensor.of(self.grad[piece.at])

    def overwrite_gradient(self, mine: xp.ndarray) -> None:
        """Put a summed stretch into the memory of the local gradients, which keep the rest."""
        for piece in self.pieces:
            p = piece.param
            g = xp.zeros_like(p.data) if p.grad is None else xp.ascontiguousarray(p.grad.data)
            p.grad = Tensor.of(g)
            stretch = g.reshape(-1)[piece.part]
            stretch[...] = mine[piece.at]
            piece.own.grad = Tensor.of(stretch)

    def drop_gradient(self) -> None:
        self.grad = None
        for tensor in (*self.params, *(piece.own for piece in self.pieces)):
            tensor.grad = None


def bytes_in(arrays: Iterable[Any]) -> int:
    """Bytes of the memory that arrays lie in, each piece of memory once."""
    return sum({id(m): m.nbytes for m in (owner(a) for a in arrays)}.values())


def bytes_held(
    tensors: Iterable[Tensor], state: Mapping[Any, dict[str, Any]],
    shards: Iterable[xp.ndarray] = (),
) -> dict[str, int]:  # fmt: skip
    """Bytes by what they are for: of parameters and their gradients, of an optimiser's state.

    `shards`: further memory of parameters. Views are the memory that they look into, counted once.
    """
    tensors = list(tensors)
    grads = [t.grad.data for t in tensors if t.grad is not None]
    states = [v for of in state.values() for v in of.values() if isinstance(v, xp.ndarray)]
    return {
        "parameters": bytes_in([*(t.data for t in tensors), *shards]),
        "gradients": bytes_in(grads),
        "optimizer": bytes_in(states),
    }


def buckets(params: list[Parameter], nbytes: int) -> list[list[Parameter]]:
    """Consecutive parameters of one dtype from the last to the first, in `nbytes` if they fit."""
    found: list[list[Parameter]] = []
    room = 0
    for p in reversed(params):
        if not found or p.data.nbytes > room or p.dtype != found[-1][0].dtype:
            found.append([])
            room = nbytes
        found[-1].append(p)
        room -= p.data.nbytes
    return found


def squares(arrays: Iterable[xp.ndarray]) -> float:
    """Σ x² in float64."""
    flat = (wide(a).reshape(-1) for a in arrays)
    blocks = (a[i : i + BLOCK].astype(xp.float64) for a in flat for i in range(0, a.size, BLOCK))
    return math.fsum(float(xp.dot(b, b)) for b in blocks)
