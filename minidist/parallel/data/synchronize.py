"""Data parallelism: every rank holds the model, computes on its rows, and gradients are summed.

The loss of a rank is its own sum divided by the *global* count (of rows, of tokens, of weights), so
the sum over ranks of the gradients is the gradient of the global mean, however unevenly the rows
fall: also for a rank that has none. Nothing is averaged: a mean of means is another loss.

Three ways to sum, which give the same: Naive and Bucketed here, and Overlapped in overlap.py. Each
rank passes the same parameters; what is frozen when the object is made takes no part, and a
parameter that a rank did not use counts as zeros there. Each sum is of what is in `grad`: set it to
None (zero_grad) in between, or sums of sums go out.

What is on a GPU goes by way of the host, a bucket at a time: messages are the host's.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise

from ...comm import Communicator, all_reduce, broadcast
from ...kernels import arrays as xp
from ...kernels.halves import as_dtype, sum_dtype, summable
from ...nn import Module, Parameter
from ...tensor.tensor import Tensor

MIB = 1 << 20


def broadcast_parameters(model: Module, comm: Communicator) -> None:
    """Make every rank's parameters and buffers those of rank 0."""
    for tensor in (*model.parameters(), *model.buffers()):
        broadcast(comm, tensor.data)


def trainable(params: Iterable[Parameter]) -> list[Parameter]:
    """Those that get gradients; one that is used in two places comes once."""
    return list({id(p): p for p in params if p.requires_grad}.values())


def gradient(p: Parameter) -> xp.ndarray:
    """p's gradient; zeros where this rank computed none, so that all ranks send the same."""
    if p.grad is None:
        p.grad = Tensor.of(xp.zeros_like(p.data))
    return p.grad.data


class Synchronizer(ABC):
    """After backward, `sum_gradients()`; before the last of several micro-batches, `no_sync()`."""

    def __init__(self, params: Iterable[Parameter], comm: Communicator, algorithm: str):
        self.params, self.comm, self.algorithm = trainable(params), comm, algorithm
        self.paused = False

    def sum_gradients(self) -> None:
        """Replace every gradient by its sum over the ranks; zeros where no rank has one."""
        if self.paused:
            return
        if self.comm.size > 1:
            self._sum_all()
        else:
            for p in self.params:
                gradient(p)

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside nothing is sent: gradients of micro-batches add up in `grad`, on their rank.

        The last micro-batch goes outside, and sends the sum of all.
        """
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def remove(self) -> None:
        """Take away what was hung on the parameters."""
        return

    @abstractmethod
    def _sum_all(self) -> None: ...


def sum_gradients_naive(
    params: Iterable[Parameter], comm: Communicator, algorithm: str = "ring"
) -> None:
    """Sum gradients over the ranks, one all-reduce a parameter: a latency each."""
    for p in trainable(params):
        g = gradient(p)
        flat = summable(g)
        all_reduce(comm, flat, algorithm=algorithm, out=flat)
        if flat is not g:
            g[...] = flat


class Naive(Synchronizer):
    """Sums gradients one by one, after backward."""

    def __init__(self, params: Iterable[Parameter], comm: Communicator, algorithm: str = "ring"):
        super().__init__(params, comm, algorithm)

    def _sum_all(self) -> None:
        sum_gradients_naive(self.params, self.comm, self.algorithm)


class Bucketed(Synchronizer):
    """Sums gradients in flat buckets, each of one dtype, in reverse order of registration.

    bfloat16, which no message can add up, goes as float32.

    The last layers' gradients are ready first, so their bucket is the first that can go.
    """

    def __init__(self, params: Iterable[Parameter], comm: Communicator,
                 bucket_bytes: int = 4 * MIB, algorithm: str = "ring"):  # fmt: skip
        super().__init__(params, comm, algorithm)
        self.buckets = fill(self.params[::-1], bucket_bytes)
        most = max(map(_bytes_of, self.buckets), default=0) if comm.size > 1 else 0
        self.room = xp.empty(most, xp.uint8)  # one for all: they go one after the other

    def _sum_all(self) -> None:
        for bucket in self.buckets:
            self._sum([gradient(p) for p in bucket])

    def _sum(self, grads: list[xp.ndarray]) -> None:
        dtype, numbers = sum_dtype(grads[0].dtype), sum(g.size for g in grads)
        flat = self.room[: numbers * dtype.itemsize].view(dtype)
        pack(grads, flat)
        all_reduce(self.comm, flat, algorithm=self.algorithm, out=flat)
        unpack(flat, grads)


def fill(params: Iterable[Parameter], bucket_bytes: int) -> list[list[Parameter]]:
    """As many parameters to a bucket as fit (at least one), in order; each dtype has its own.

    The buckets are in the order in which they are complete: of their last parameters.
    """
    buckets: list[list[Parameter]] = []
    current: dict[tuple, tuple[list[Parameter], int]] = {}  # and the room that is left there
    turn: dict[int, int] = {}
    for p in params:
        kind = p.dtype, p.is_cuda
        bucket, room = current.get(kind, (None, 0))
        if bucket is None or p.data.nbytes > room:
            bucket, room = [], bucket_bytes
            buckets.append(bucket)
        bucket.append(p)
        current[kind], turn[id(p)] = (bucket, room - p.data.nbytes), len(turn)
    return sorted(buckets, key=lambda bucket: turn[id(bucket[-1])])


def parts_of(flat: xp.ndarray, arrays: Sequence[xp.ndarray]) -> list[xp.ndarray]:
    """The flat buffer as views of the arrays' shapes, one after the other."""
    edges = pairwise(accumulate((a.size for a in arrays), initial=0))
    return [flat[i:j].reshape(a.shape) for a, (i, j) in zip(arrays, edges)]


def pack(grads: Sequence[xp.ndarray], flat: xp.ndarray) -> None:
    """Gradients into a flat buffer of the host; from a GPU in one copy."""
    if xp.on_gpu(grads[0]):
        xp.concatenate([as_dtype(g, flat.dtype).reshape(-1) for g in grads]).get(out=flat)
        return
    for part, g in zip(parts_of(flat, grads), grads):
        part[...] = as_dtype(g, part.dtype)


def unpack(flat: xp.ndarray, grads: Sequence[xp.ndarray]) -> None:
    """And back, each rounded to its dtype."""
    for part, g in zip(parts_of(xp.at_home_of(grads[0], flat), grads), grads):
        g[...] = part


def _bytes_of(bucket: list[Parameter]) -> int:
    return sum(p.numel() * sum_dtype(p.dtype).itemsize for p in bucket)
