"""Vocabulary-parallel cross-entropy: each rank has the logits of some classes, and none has all.

How it works: the loss of a row is log Σ exp(x) - x[target]. Each rank computes its part of the
row's maximum, of the sum of exponentials and of the target's logit, and three all-reduces of one or
two numbers a row complete them. Backward needs no message: softmax minus one-hot is local.

Shapes: n rows, C classes, t ranks.
"""

from __future__ import annotations

from ...comm import all_reduce
from ...kernels import arrays as xp
from ...nn import functional as F
from ...ops.op import differentiable
from ...ops.reduce import sum_over
from ...tensor.tensor import Tensor
from ..layout import Shard


@differentiable(autocast="fp32")
def _losses(logits, target, comm, first, classes, smoothing, keep):
    columns = first + xp.arange(logits.shape[1])  # (C/t,)
    real = columns < classes  # columns from `classes` on are padding
    x = xp.where(real, logits, -xp.inf)  # (n, C/t)
    top = all_reduce(comm, xp.highest(x, 1), "max")  # (n,)
    e = xp.exp(x - top[:, None])  # (n, C/t)
    total = all_reduce(comm, e.sum(1))  # (n,)
    is_local = (target >= first) & (target < first + logits.shape[1])  # (n,)
    rows, at = xp.arange(len(target)), xp.where(is_local, target - first, 0)
    partial = xp.stack([xp.where(is_local, logits[rows, at] if logits.shape[1] else 0, 0),
                        xp.where(real, logits, 0).sum(1)])  # fmt: skip
    picked, summed = all_reduce(comm, partial)  # (2, n): target's logit, and Σ x for smoothing
    wanted = (1 - smoothing) * picked + smoothing / classes * summed
    losses = xp.where(keep, xp.log(total) + top - wanted, 0)  # an ignored row may be NaN

    def vjp(g):
        d = e / total[:, None]
        d -= smoothing / classes * real  # in place: a float times bools would be float64
        d[rows, at] -= (1 - smoothing) * is_local.astype(d.dtype)
        return xp.where(keep[:, None], d * g[:, None], 0)

    return losses, vjp


def vocab_parallel_cross_entropy(
    logits: Tensor, target: Tensor, shard: Shard, *, classes: int | None = None,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """F.cross_entropy of logits (n, C), of which this rank has the columns shard.index: (n, C/t).

    target (n,) is replicated. Columns from `classes` on (by default there are none) are padding,
    and are left out of the softmax. Label smoothing mixes with the uniform distribution over all
    classes, not over this rank's. Every rank gets the same losses.

    Raises ValueError if the logits are not this rank's columns: gathered ones would be counted once
    a rank, and the loss would be too high by log(ranks).
    """
    classes = shard.shape[0] if classes is None else classes
    if logits.ndim != 2 or logits.shape[1] != len(shard.index):
        raise ValueError(
            f"vocab_parallel_cross_entropy: logits {logits.shape}: want (n, {len(shard.index)}), "
            "this rank's columns, not gathered ones"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r} is not 'mean', 'sum' or 'none'")
    if shard.comm.size == 1 and classes == shard.shape[0]:
        return F.cross_entropy(
            logits, target, ignore_index=ignore_index, reduction=reduction,
            label_smoothing=label_smoothing,
        )  # fmt: skip
    keep = target.data != ignore_index
    known = xp.where(keep, target.data, 0)
    if xp.outside(known, classes):
        raise IndexError(f"target {known.max()} is out of bounds: there are {classes} classes")
    first = int(shard.index[0])
    losses = _losses(logits, known, shard.comm, first, classes, label_smoothing, keep)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else sum_over(losses, float(keep.sum()))
