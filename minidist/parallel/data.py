"""Data parallelism: every rank holds the model, computes on its rows, and gradients are summed.

The loss of a rank is its own sum divided by the *global* count, so the sum over ranks of the
gradients is the gradient of the global mean, however unevenly the rows fall.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..comm import Communicator, all_reduce, broadcast
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
        all_reduce(comm, g, algorithm=algorithm, out=g)


def gradient(p: Parameter) -> np.ndarray:
    """p's gradient; zeros where this rank computed none, so that all ranks send the same."""
    if p.grad is None:
        p.grad = Tensor(np.zeros_like(p.data))
    return p.grad.data


class Bucketed:
    """Sums gradients (all of one dtype) in flat buckets, in reverse order of registration.

    The last layers' gradients are ready first, so their bucket is the first that can go.
    """

    def __init__(self, params: Iterable[Parameter], comm: Communicator,
                 bucket_bytes: int = 4 * MIB, algorithm: str = "ring"):  # fmt: skip
        self.comm, self.algorithm = comm, algorithm
        self.buckets = _fill(list(params)[::-1], bucket_bytes)
        most = max(sum(p.numel() for p in bucket) for bucket in self.buckets)
        self.flat = np.empty(most, self.buckets[0][0].dtype)

    def sum_gradients(self) -> None:
        """Replace every gradient by its sum over the ranks."""
        for bucket in self.buckets:
            self._sum(bucket)

    def _sum(self, bucket: list[Parameter]) -> None:
        grads = [gradient(p) for p in bucket]
        edges = np.cumsum([0, *(g.size for g in grads)])
        flat = self.flat[: edges[-1]]
        parts = [flat[i:j].reshape(g.shape) for g, i, j in zip(grads, edges, edges[1:])]
        for part, g in zip(parts, grads):
            part[...] = g
        all_reduce(self.comm, flat, algorithm=self.algorithm, out=flat)
        for part, g in zip(parts, grads):
            g[...] = part


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
