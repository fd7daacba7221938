"""Overlapped data parallelism: buckets of gradients leave while backward goes on.

A hook on every parameter notes that its gradient is complete. A bucket whose gradients all are is
launched, a non-blocking all-reduce, as soon as those before it have been: in the same order on
every rank, whichever gradients are complete first there. Nothing runs behind the program's back, so
every hook also lets what is under way get on (Li et al. 2020, "PyTorch Distributed").
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable
from functools import partial

from ...comm import Communicator, Request, iall_reduce
from ...kernels import arrays as xp
from ...kernels.halves import sum_dtype
from ...nn import Parameter
from ...tensor.tensor import Tensor
from .synchronize import MIB, Synchronizer, fill, gradient, pack, parts_of, unpack

# One more than a communicator takes would wait for the oldest, in the middle of backward, for a
# rank that may itself wait there for this one.
UNDER_WAY = 32


class Bucket:
    """Parameters of one dtype, and the flat buffer in which their gradients go.

    There the gradients also stay (each `grad` is a view of it), so that none is copied back; those
    of bfloat16 or on a GPU are copied in before and back after.
    """

    def __init__(self, params: list[Parameter]):
        dtype, numbers = params[0].dtype, sum(p.numel() for p in params)
        self.params, self.flat = params, xp.empty(numbers, sum_dtype(dtype))
        self.shared = dtype == self.flat.dtype and not params[0].is_cuda
        self.parts = dict(zip(map(id, params), parts_of(self.flat, [p.data for p in params])))
        self.begin()

    def begin(self) -> None:
        self.missing = set(self.parts)

    def take(self, p: Parameter) -> None:
        """p's gradient is complete: it moves into the buffer, where the next one is added up."""
        self.missing.discard(id(p))
        g, part = gradient(p), self.parts[id(p)]
        if self.shared and g is not part:
            part[...] = g
            p.grad = Tensor.of(part)

    def take_rest(self) -> None:
        """What this rank did not use: zeros, or what earlier micro-batches left."""
        for p in self.params:
            if id(p) in self.missing:
                self.take(p)

    def pack(self) -> None:
        if not self.shared:
            pack([gradient(p) for p in self.params], self.flat)

    def unpack(self) -> None:
        if not self.shared:
            unpack(self.flat, [gradient(p) for p in self.params])


class Overlapped(Synchronizer):
    """Sums gradients in the buckets of Bucketed, each on its way while backward goes on.

    All ranks make it together: its messages have a communicator of their own, so that they may
    cross those of collectives inside backward. What `grad` held is overwritten by the next step.
    """

    def __init__(self, params: Iterable[Parameter], comm: Communicator,
                 bucket_bytes: int = 4 * MIB, algorithm: str = "ring",
                 late: Collection[Parameter] = ()):  # fmt: skip
        """`late` are parameters whose gradients are not whole after backward: theirs are summed
        in sum_gradients()."""
        super().__init__(params, comm, algorithm)
        waits = set(late)
        self.buckets: list[Bucket] = []
        self.handles = []
        self.next = 0  # the bucket that is launched next
        self.pending: deque[Request] = deque()
        own = comm.split(0) if comm.size > 1 else None
        if own is not None:
            self.own, self.buckets = own, [*map(Bucket, fill(self.params[::-1], bucket_bytes))]
        for bucket in self.buckets:
            ready = partial(self._ready, bucket)
            self.handles += [
                p.register_post_accumulate_grad_hook(ready)
                for p in bucket.params if p not in waits
            ]  # fmt: skip

    def remove(self) -> None:
        """Take the hooks away: from then on everything is sent by sum_gradients()."""
        for handle in self.handles:
            handle.remove()

    def _ready(self, bucket: Bucket, p: Parameter) -> None:
        """The hook: p's gradient is complete."""
        if self.paused:
            return
        if id(p) not in bucket.missing:
            raise RuntimeError(
                f"backward reached a parameter of shape {p.shape} again, whose gradient is already "
                "on its way: call sum_gradients() after each backward, or put all micro-batches "
                "but the last into `with no_sync():`"
            )
        bucket.take(p)
        self._let_go_on()
        while self._may_launch():
            self._launch()

    def _may_launch(self) -> bool:
        if self.next == len(self.buckets) or len(self.pending) == UNDER_WAY:
            return False
        return not self.buckets[self.next].missing

    def _launch(self) -> None:
        bucket, label = self.buckets[self.next], f"bucket {self.next}"
        self.next += 1
        bucket.pack()
        self.own.ledger = self.comm.ledger
        self.pending.append(
            iall_reduce(
                self.own, bucket.flat, algorithm=self.algorithm, out=bucket.flat, label=label
            )
        )

    def _let_go_on(self) -> None:
        while self.pending and self.pending[0].is_completed():
            self.pending.popleft().wait()

    def _sum_all(self) -> None:
        for bucket in self.buckets[self.next :]:
            bucket.take_rest()
        while self.next < len(self.buckets):
            if len(self.pending) == UNDER_WAY:
                self.pending.popleft().wait()
            self._launch()
        self._finish()

    def _finish(self) -> None:
        while self.pending:
            self.pending.popleft().wait()
        self.next = 0
        for bucket in self.buckets:
            bucket.unpack()
            bucket.begin()
