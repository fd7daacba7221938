"""Data parallelism: every rank holds the model, computes on its rows, and gradients are summed.

The loss of a rank is its own sum divided by the *global* count, so the sum over ranks of the
gradients is the gradient of the global mean, however unevenly the rows fall.

What is on a GPU goes by way of the host, a bucket at a time: messages are the host's.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..comm import Communicator, all_reduce, broadcast
from ..kernels import arrays as np
from ..kernels.halves import as_dtype, held, store, summable
from ..nn import Module, Parameter
from ..tensor import Tensor

MIB = 1 << 20


def broadcast_parameters(model: Module, comm: Communicator) -> None:
    """Make every rank's parameters those of rank 0."""
    for p in model.parameters():
        broadcast(comm, p.data)


def sum_gradients_naive(
    params: Iterable[Parameter], comm: Communicator, algorithm: str = "ring"
) -> None:
    """Sum gradients over the ranks, one all-reduce a parameter: a latency each."""
    for p in params:
        g = gradient(p)
        flat = summable(g)
        all_reduce(comm, flat, algorithm=algorithm, out=flat)
        if flat is not g:
            store(flat, g)


def gradient(p: Parameter) -> np.ndarray:
    """p's gradient; zeros where this rank computed none, so that all ranks send the same."""
    if p.grad is None:
        p.grad = Tensor.of(np.zeros_like(p.data))
    return p.grad.data


class Bucketed:
    """Sums gradients (all of one dtype) in flat buckets, in reverse order of registration.

    bfloat16, which no message can add up, goes as float32.

    The last layers' gradients are ready first, so their bucket is the first that can go.
    """

    def __init__(self, params: Iterable[Parameter], comm: Communicator,
                 bucket_bytes: int = 4 * MIB, algorithm: str = "ring"):  # fmt: skip
        self.comm, self.algorithm = comm, algorithm
        self.buckets = _fill(list(params)[::-1], bucket_bytes)
        most = max(sum(p.numel() for p in bucket) for bucket in self.buckets)
        self.flat = np.empty(most, held(self.buckets[0][0].dtype))

    def sum_gradients(self) -> None:
        """Replace every gradient by its sum over the ranks."""
        for bucket in self.buckets:
            grads = [gradient(p) for p in bucket]
            if self.comm.size > 1:
                (self._sum_there if np.on_gpu(grads[0]) else self._sum)(grads)

    def _sum(self, grads: list[np.ndarray]) -> None:
        edges = np.cumsum([0, *(g.size for g in grads)])
        flat = self.flat[: edges[-1]]
        parts = [flat[i:j].reshape(g.shape) for g, i, j in zip(grads, edges, edges[1:])]
        for part, g in zip(parts, grads):
            part[...] = as_dtype(g, part.dtype)
        all_reduce(self.comm, flat, algorithm=self.algorithm, out=flat)
        for part, g in zip(parts, grads):
            store(part, g)

    def _sum_there(self, grads: list[np.ndarray]) -> None:
        """The same of arrays on a GPU: one copy to the host and one back."""
        there = np.concatenate([as_dtype(g, self.flat.dtype).reshape(-1) for g in grads])
        flat = self.flat[: there.size]
        there.get(out=flat)
        all_reduce(self.comm, flat, algorithm=self.algorithm, out=flat)
        there.set(flat)
        first = 0
        for g in grads:
            store(there[first : first + g.size].reshape(g.shape), g)
            first += g.size


def _fill(params: list[Parameter], bucket_bytes: int) -> list[list[Parameter]]:
    """Consecutive parameters, as many to a bucket as fit (at least one)."""
    buckets: list[list[Parameter]] = []
    room = 0
    for p in params:
        if not buckets or p.data.nbytes > room:
            buckets.append([])
            room = bucket_bytes
        buckets[-1].append(p)
        room -= p.data.nbytes
    return buckets
