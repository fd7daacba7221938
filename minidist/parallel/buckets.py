"""Buckets: parameters whose gradients travel in one message, as one flat array.

Data parallelism and ZeRO both sum gradients over the replicas bucket by bucket. Here stands what
they share: which parameters make a bucket, the way into a flat array and back, and no_sync().
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import accumulate, pairwise
from typing import Any

from ..kernels import arrays as xp
from ..kernels.half_precision import as_dtype
from ..nn import Parameter
from ..tensor.tensor import Tensor

MIB = 1 << 20


class GradientSync:
    """Something that sums gradients over replicas: after each backward, unless in no_sync()."""

    require_backward_grad_sync = True

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


def views_of(flat: xp.ndarray, shapes: Sequence[tuple[int, ...]]) -> list[xp.ndarray]:
    """The flat array as views of these shapes, one after the other."""
    edges = pairwise(accumulate((math.prod(shape) for shape in shapes), initial=0))
    return [flat[i:j].reshape(shape) for shape, (i, j) in zip(shapes, edges)]


def pack(grads: Sequence[xp.ndarray], flat: xp.ndarray) -> None:
    """Copy gradients into a flat array of the host; from a GPU in one copy."""
    if xp.on_gpu(grads[0]):
        joined: Any = xp.concatenate([as_dtype(g, flat.dtype).reshape(-1) for g in grads])
        joined.get(out=flat)
        return
    for view, g in zip(views_of(flat, [g.shape for g in grads]), grads):
        view[...] = as_dtype(g, view.dtype)


def unpack(flat: xp.ndarray, grads: Sequence[xp.ndarray]) -> None:
    """And back, each rounded to its dtype."""
    flat = xp.at_home_of(grads[0], flat)
    for view, g in zip(views_of(flat, [g.shape for g in grads]), grads):
        g[...] = view
