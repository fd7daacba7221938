"""Batch norm over the rows of all ranks: the statistics, and the gradients, of one process.

How it works: each rank computes count, mean and variance of its rows. One all-gather brings those
of all ranks, and every rank merges them in the same way. In backward, mean and variance depend on
the rows of all ranks: one all-reduce adds up the two sums that went through them.

Shapes: n rows, c channels, l positions, t ranks.
"""

from __future__ import annotations

import math

from ...autograd.tape import Joint
from ...comm import Communicator, all_gather, all_reduce
from ...kernels import arrays as xp
from ...kernels import batch_norm as batch
from ...kernels.half_precision import wide
from ...nn import Module
from ...nn.norm import _BatchNorm
from ...ops.op import differentiable, want_one_dtype
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor

SHARED = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked", "training")


def moments(x: xp.ndarray, comm: Communicator) -> tuple[int, xp.ndarray, xp.ndarray]:
    """Count, mean and variance of each channel over all ranks' x (n, c, l); n may differ by rank.

    Each rank's count, mean and sum of squared deviations are merged in the order of ranks (Chan,
    Golub & LeVeque 1983). Sums of x² would lose digits where the mean is large.
    """
    count = x.shape[0] * x.shape[2]
    zeros = xp.zeros_like(x, xp.float64, shape=x.shape[1])  # (c,)
    mean, var = batch.moments(x) if count else (zeros, zeros)
    local = xp.stack([xp.full_like(zeros, count), mean, var * xp.float64(count)])  # (3, c)
    counts, means, squares = (  # (t, c) each
        all_gather(comm, local[None], [1] * comm.size).swapaxes(0, 1).astype(xp.float64)
    )
    total = int(counts[:, :1].sum())
    mean = (counts * means).sum(0) / max(total, 1)
    return total, mean, (squares + counts * (means - mean) ** 2).sum(0) / max(total, 1)


@differentiable(autocast="fp32")
def _batch_norm(x, weight, bias, *, mean, var, eps, total, comm):
    size = *x.shape[:2], math.prod(x.shape[2:])
    rows, mean = xp.ascontiguousarray(x).reshape(size), mean.astype(x.dtype)
    rstd = (1 / xp.sqrt(var + eps)).astype(x.dtype)

    def vjp(g):
        dw, db = batch.backward_affine(g.reshape(size), rows, mean, rstd)
        shares = all_reduce(comm, xp.stack([dw, db])) / total  # over the rows of all ranks
        return [batch.backward_input(g, rows, mean, rstd, weight, *shares), dw, db]

    return batch.forward(rows, mean, rstd, weight, bias).reshape(x.shape), Joint(vjp)


class SyncBatchNorm(_BatchNorm):
    """BatchNorm1d or 2d that in training uses the statistics of the rows of all ranks of `comm`.

    Every rank calls forward and backward, also a rank without rows. The gradients of weight and
    bias are those of this rank's rows, and are summed over the ranks like all others. Evaluation
    sends nothing.
    """

    dims = (2, 3, 4, 5)

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, *, comm: Communicator,
        bias: bool = True, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, bias=bias, dtype=dtype
        )
        self.comm = comm

    def forward(self, input: Tensor) -> Tensor:
        if not self.training or self.comm.size == 1:
            return super().forward(input)
        if input.ndim not in self.dims or input.shape[1] != self.num_features:
            raise ValueError(
                f"SyncBatchNorm({self.num_features}): input {input.shape}: want (n, c, …) of "
                f"{self.num_features} channels c and 2 to 5 dimensions"
            )
        want_one_dtype("batch_norm", input, self.weight, self.bias)
        size = *input.shape[:2], math.prod(input.shape[2:])
        total, mean, var = moments(wide(input.data).reshape(size), self.comm)
        if total < 2:
            raise ValueError(
                f"SyncBatchNorm: {total} values a channel on all {self.comm.size} ranks together: "
                "want 2 or more: a larger batch, or eval()"
            )
        self._follow(mean, var * (total / (total - 1)))
        return _batch_norm(
            input, self.weight, self.bias, mean=mean, var=var, eps=self.eps, total=total,
            comm=self.comm,
        )  # fmt: skip

    def _follow(self, mean: xp.ndarray, unbiased: xp.ndarray) -> None:
        """Move the running statistics, if there are any, towards those of this batch."""
        momentum, tracked = self.momentum, self.num_batches_tracked
        if tracked is None:
            return
        tracked.data += 1
        if momentum is None:
            momentum = 1 / int(tracked)
        for running, new in ((self.running_mean, mean), (self.running_var, unbiased)):
            assert running is not None
            batch.follow(running.data, new, momentum)


def convert_sync_batchnorm(module: Module, comm: Communicator) -> Module:
    """Replace every batch norm of the module by a SyncBatchNorm with the same parameters.

    The module is changed in place and returned. If the module itself is a batch norm, a new one is
    returned.
    """
    return _converted(module, comm, {})


def _converted(module: Module, comm: Communicator, done: dict[int, Module]) -> Module:
    if id(module) not in done:  # one that is used twice stays one
        done[id(module)] = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            done[id(module)] = _twin(module, comm)
        for name, child in list(vars(module).items()):
            if isinstance(child, Module):
                setattr(module, name, _converted(child, comm, done))
    return done[id(module)]


def _twin(norm: _BatchNorm, comm: Communicator) -> SyncBatchNorm:
    sync = SyncBatchNorm(
        norm.num_features, norm.eps, norm.momentum, norm.affine, norm.track_running_stats,
        comm=comm,
    )  # fmt: skip
    for name in SHARED:
        setattr(sync, name, getattr(norm, name))
    return sync
