"""Buckets: parameters whose gradients travel in one message, as one flat array.

Data parallelism and ZeRO both sum gradients over the replicas bucket by bucket. They share this
file: equal weights at the start, filling buckets with parameters, copying into a flat array and
back, sum or mean, and no_sync().
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ..comm import Communicator, broadcast
from ..kernels import arrays as xp
from ..kernels.half_precision import as_dtype
from ..nn import Module, Parameter
from ..tensor.tensor import Tensor

MIB = 1 << 20


def start_alike(model: Module | Iterable[Parameter], *comms: Communicator) -> list[Parameter]:
    """Broadcast rank 0's parameters to all ranks; if `model` is a Module, also its buffers.

    Replicas with different initial weights would silently train different models. All ranks call
    this together when they create a synchronizer or an optimiser. Only the ranks of `comms` are
    replicas: under tensor parallelism these are the ranks that have the same shard.
    """
    params = list(model.parameters() if isinstance(model, Module) else model)
    buffers = list(model.buffers() if isinstance(model, Module) else ())
    for comm in comms:
        for tensor in (*params, *buffers) if comm.size > 1 else ():
            broadcast(comm, tensor.data, label="start")
    return params


def check_order(name: str, model: Any, comm: Any) -> None:
    """Refuse arguments in another order, before anything is sent."""
    if not isinstance(comm, Communicator) or isinstance(model, Communicator):
        raise TypeError(
            f"{name} got {type(model).__name__}, then {type(comm).__name__}: want a model (or its "
            f"parameters), then a communicator: {name}(model, comm, …)"
        )


def frozen_of(model: Module | Iterable[Parameter]) -> list[tuple[str, Parameter]]:
    """The frozen parameters, each with its name (with its shape if the name is not known)."""
    named = model.named_parameters() if isinstance(model, Module) else (
        (f"a parameter of shape {tuple(p.shape)}", p) for p in model
    )  # fmt: skip
    return [(name, p) for name, p in named if not p.requires_grad]


class GradientSync:
    """Something that sums gradients over replicas: after each backward, unless in no_sync()."""

    require_backward_grad_sync = True
    op = "sum"  # or "mean": sums are divided by the number of replicas
    frozen: Sequence[tuple[str, Parameter]] = ()  # parameters that were frozen at its creation

    def warn_if_unfrozen(self) -> None:
        """Warn once about parameters that were unfrozen too late to have their gradients summed."""
        late = [what for what, p in self.frozen if p.requires_grad]
        if not late:
            return
        self.frozen = [(what, p) for what, p in self.frozen if not p.requires_grad]
        name = type(self).__name__
        warnings.warn(
            f"these parameters were frozen when {name} was created, and now require gradients: "
            f"{', '.join(late)}. {name} does not sum their gradients, so each rank has its own: "
            f"create {name} after requires_grad_()",
            stacklevel=3,
        )

    @contextmanager
    def no_sync(self) -> Iterator[None]:
        """Inside nothing is sent: the gradients of micro-batches add up in `grad`, on their rank.

        The last micro-batch goes outside, and sends the sum of all.
        """
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before


def trainable(params: Iterable[Parameter]) -> list[Parameter]:
    """Those that get gradients; one that is used in two places comes once."""
    return list({id(p): p for p in params if p.requires_grad}.values())


def gradient(p: Parameter) -> xp.ndarray:
    """p's gradient; zeros where this rank computed none, so that all ranks send the same."""
    if p.grad is None:
        p.grad = Tensor.of(xp.zeros_like(p.data))
    return p.grad.data


def fill_buckets(params: Iterable[Parameter], bucket_bytes: int) -> list[list[Parameter]]:
    """As many parameters to a bucket as fit (at least one), in order; each dtype has its own.

    Give the parameters in reverse order of registration: backward completes the last layers'
    gradients first. The buckets come in the order in which they are complete: of their last
    parameters.
    """
    buckets: list[list[Parameter]] = []
    current: dict[tuple, tuple[list[Parameter], int]] = {}  # and the room that is left in it
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


def pack(grads: Sequence[xp.ndarray], flat: xp.ndarray) -> None:
    """Copy gradients into a flat array of the host; from a GPU in one copy."""
    if xp.on_gpu(grads[0]):
        joined: Any = xp.concatenate([as_dtype(g, flat.dtype).reshape(-1) for g in grads])
        joined.get(out=flat)
        return
    for view, g in zip(xp.cut(flat, [g.shape for g in grads]), grads):
        view[...] = as_dtype(g, view.dtype)


def unpack(flat: xp.ndarray, grads: Sequence[xp.ndarray]) -> None:
    """And back, each rounded to its dtype."""
    flat = xp.at_home_of(grads[0], flat)
    for view, g in zip(xp.cut(flat, [g.shape for g in grads]), grads):
        g[...] = view
