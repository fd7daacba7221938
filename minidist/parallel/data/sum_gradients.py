"""Data parallelism: every rank holds the model, computes on its rows, and gradients are summed.

How it works:
1. A rank's loss is its own *sum* divided by the *global* count (of rows, tokens or weights). So the
   sum over ranks of the gradients is the gradient of the global mean, however unevenly the rows are
   spread, and also with a rank that has none. A mean of means is another loss, so nothing is
   averaged by default. average=True does what PyTorch's DistributedDataParallel does. Use it if the
   loss is the mean over this rank's rows, and every rank has the same number of rows.
2. After backward, sum_gradients() replaces each `grad` by its sum over the ranks. There are three
   ways, which give the same: Naive (one all-reduce a parameter), Bucketed (one a flat buffer), and
   Overlapped (buckets that are sent while backward goes on).
3. Each rank passes the same model, or its parameters, and starts with rank 0's weights
   (start_alike). Buffers are broadcast only if the model itself is passed. The gradient of a
   parameter that is frozen when the object is created is not summed (if it is unfrozen later, a
   warning says so). If a rank did not use a parameter, its gradient there counts as zeros.
4. Whatever is in `grad` is summed: call zero_grad() between steps, or old sums are summed again.
5. Messages are in the host's memory: gradients on a GPU are copied there, a bucket at a time.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Collection, Iterable
from functools import partial

from ...comm import Communicator, Request, all_reduce, iall_reduce
from ...kernels import arrays as xp
from ...kernels.half_precision import sum_dtype, summable
from ...nn import Module, Parameter
from ...tensor.flat import flats_of, stretch
from ...tensor.tensor import Tensor
from ..buckets import (
    MIB,
    GradientSync,
    check_order,
    fill_buckets,
    frozen_of,
    gradient,
    pack,
    start_alike,
    trainable,
    unpack,
)

Params = Module | Iterable[Parameter]


def broadcast_parameters(model: Module, comm: Communicator) -> None:
    """Make every rank's parameters and buffers those of rank 0."""
    start_alike(model, comm)


class Synchronizer(GradientSync, ABC):
    """After backward, `sum_gradients()`; before the last of several micro-batches, `no_sync()`.

    All ranks create it together, and it broadcasts rank 0's weights. `average=True` divides the
    sums by the number of ranks: use it if the loss is the mean over this rank's rows.
    """

    def __init__(
        self, params: Params, comm: Communicator, algorithm: str, average: bool = False
    ):  # fmt: skip
        check_order(type(self).__name__, params, comm)
        model = params if isinstance(params, Module) else list(params)
        self.params = trainable(start_alike(model, comm))
        self.comm, self.algorithm, self.frozen = comm, algorithm, frozen_of(model)
        self.op = "mean" if average else "sum"

    def sum_gradients(self) -> None:
        """Replace every gradient by its sum over the ranks; zeros where no rank has one."""
        self.warn_if_unfrozen()
        if not self.require_backward_grad_sync:
            return
        if self.comm.size > 1:
            self._sum_all()
        else:
            for p in self.params:
                gradient(p)

    def remove(self) -> None:
        """Take away the hooks on the parameters, if there are any."""
        return

    @abstractmethod
    def _sum_all(self) -> None: ...


# Naive: one all-reduce a parameter


def sum_gradients_naive(
    params: Iterable[Parameter], comm: Communicator, algorithm: str = "ring", op: str = "sum"
) -> None:
    """Sum gradients over the ranks (or op="mean"), one all-reduce a parameter: a latency each."""
    for p in trainable(params):
        g = gradient(p)
        flat = summable(g)
        all_reduce(comm, flat, op, algorithm, out=flat)
        if flat is not g:
            g[...] = flat


class Naive(Synchronizer):
    """Sums gradients one by one, after backward."""

    def __init__(self, params: Params, comm: Communicator, algorithm: str = "ring", *,
                 average: bool = False):  # fmt: skip
        super().__init__(params, comm, algorithm, average)

    def _sum_all(self) -> None:
        sum_gradients_naive(self.params, self.comm, self.algorithm, self.op)


# Bucketed: one all-reduce a flat buffer


class Bucketed(Synchronizer):
    """Sums gradients in flat buckets, each of one dtype, in reverse order of registration.

    Messages cannot add up bfloat16: it is sent as float32. The last layers' gradients are ready
    first, so their bucket is the first that can be sent. Gradients that lie side by side already
    (Optimizer.flatten_parameters) are summed where they are: their bucket is a stretch of them.
    """

    def __init__(self, params: Params, comm: Communicator, bucket_bytes: int = 4 * MIB,
                 algorithm: str = "ring", *, average: bool = False):  # fmt: skip
        super().__init__(params, comm, algorithm, average)
        flats = flats_of(self.params)
        rest = set(self.params).difference(*(flat.leaves for flat in flats))
        self.buckets = fill_buckets([p for p in self.params[::-1] if p in rest], bucket_bytes)
        for flat in flats:
            leaves = set(flat.leaves)
            self.buckets += fill_buckets([p for p in self.params if p in leaves], bucket_bytes)
        self.room = xp.aligned(0, xp.uint8)  # one for all buckets that are copied, in turn

    def _sum_all(self) -> None:
        for bucket in self.buckets:
            self._sum([gradient(p) for p in bucket])

    def _sum(self, grads: list[xp.ndarray]) -> None:
        flat = stretch(grads)
        if flat is not None:
            all_reduce(self.comm, flat, self.op, self.algorithm, out=flat)
            return
        dtype, numbers = sum_dtype(grads[0].dtype), sum(g.size for g in grads)
        if self.room.size < numbers * dtype.itemsize:
            self.room = xp.aligned(numbers * dtype.itemsize, xp.uint8)
        flat = self.room[: numbers * dtype.itemsize].view(dtype)
        pack(grads, flat)
        all_reduce(self.comm, flat, self.op, self.algorithm, out=flat)
        unpack(flat, grads)


# Overlapped: buckets are sent while backward goes on (Li et al. 2020, "PyTorch Distributed")
#
# 1. A hook on every parameter notes that its gradient is complete.
# 2. When all gradients of a bucket are complete, and the buckets before it have been launched, its
#    non-blocking all-reduce is launched. So the order is the same on every rank, whichever gradient
#    is complete first.
# 3. There is no background thread. Every hook therefore also calls the requests under way, so that
#    they make progress.

# A communicator takes one request more than this before it waits for the oldest. To wait in the
# middle of backward could deadlock: the other rank may itself be waiting for this one.
UNDER_WAY = 32


class Bucket:
    """Parameters of one dtype, and the flat buffer of their gradients.

    The gradients stay in the buffer (each `grad` is a view of it), so none is copied back. Those of
    bfloat16 or on a GPU are copied in before the all-reduce and back after it.
    """

    def __init__(self, params: list[Parameter]):
        dtype, numbers = params[0].dtype, sum(p.numel() for p in params)
        self.params, self.flat = params, xp.empty(numbers, sum_dtype(dtype))
        self.in_place = dtype == self.flat.dtype and not params[0].is_cuda
        self.views = dict(zip(map(id, params), xp.cut(self.flat, [p.shape for p in params])))
        self.begin()

    def begin(self) -> None:
        self.missing = set(self.views)

    def take(self, p: Parameter) -> None:
        """p's gradient is complete: move it into the buffer, where the next one is added to it."""
        self.missing.discard(id(p))
        g, view = gradient(p), self.views[id(p)]
        if self.in_place and g is not view:
            view[...] = g
            p.grad = Tensor.of(view)

    def take_rest(self) -> None:
        """Take the gradients that this backward did not fill: zeros, or earlier micro-batches'."""
        for p in self.params:
            if id(p) in self.missing:
                self.take(p)

    def pack(self) -> None:
        if not self.in_place:
            pack([gradient(p) for p in self.params], self.flat)

    def unpack(self) -> None:
        if not self.in_place:
            unpack(self.flat, [gradient(p) for p in self.params])


class Overlapped(Synchronizer):
    """Sums gradients in the buckets of Bucketed, each sent while backward goes on.

    Its messages have a communicator of their own, so that they may
    cross those of collectives inside backward. The next step overwrites what `grad` held.
    """

    def __init__(self, params: Params, comm: Communicator, bucket_bytes: int = 4 * MIB,
                 algorithm: str = "ring", late: Collection[Parameter] = (), *,
                 average: bool = False):  # fmt: skip
        """`late`: parameters whose gradients are not complete after backward. sum_gradients() sums
        them."""
        super().__init__(params, comm, algorithm, average)
        waits = set(late)
        self.buckets: list[Bucket] = []
        self.handles = []
        self.next = 0  # the bucket that is launched next
        self.pending: deque[Request] = deque()
        own = comm.split(0) if comm.size > 1 else None
        if own is not None:
            self.own = own
            self.buckets = [*map(Bucket, fill_buckets(self.params[::-1], bucket_bytes))]
        for bucket in self.buckets:
            ready = partial(self._ready, bucket)
            self.handles += [
                p.register_post_accumulate_grad_hook(ready)
                for p in bucket.params if p not in waits
            ]  # fmt: skip

    def remove(self) -> None:
        """Take the hooks away: from then on sum_gradients() sends everything."""
        for handle in self.handles:
            handle.remove()

    def _ready(self, bucket: Bucket, p: Parameter) -> None:
        """The hook: p's gradient is complete."""
        if not self.require_backward_grad_sync:
            return
        if id(p) not in bucket.missing:
            raise RuntimeError(
                f"backward reached a parameter of shape {p.shape} again, whose gradient is already "
                "on its way: call sum_gradients() after each backward, or put all micro-batches "
                "but the last into `with no_sync():`"
            )
        bucket.take(p)
        self._progress()
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
                self.own, bucket.flat, self.op, self.algorithm, out=bucket.flat, label=label
            )
        )

    def _progress(self) -> None:
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
