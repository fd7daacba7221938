"""Vocabulary-parallel cross-entropy: each rank has the logits of some classes, and none has all.

How it works: the loss of a row is log Σ exp(x) - x[target]. Each rank computes its own maximum of a
row, its sum of exp(x - its maximum) and the target's logit if it has it. Three all-reduces of one
or two numbers a row complete them: a sum is first multiplied by exp(its maximum - the row's).
Backward needs no message: softmax minus one-hot is local.

Shapes: n rows, C classes, t ranks.
"""

from __future__ import annotations

from ...comm import all_reduce
from ...kernels import arrays as xp
from ...kernels import cross_entropy as kernel
from ...nn import functional as F
from ...ops.op import differentiable
from ...ops.reduce import sum_over
from ...tensor.tensor import Tensor
from ..layout import Shard


@differentiable(autocast="fp32")
def _losses(logits, target, comm, first, classes, smoothing, keep):
    logits, here = xp.ascontiguousarray(logits), target - first  # (n, C/t), (n,)
    columns = min(max(classes - first, 0), logits.shape[1])  # from there on they are padding
    here = xp.where((here >= 0) & (here < columns), here, -1)  # (n,): -1 is another rank's
    sums, part = kernel.part_forward(logits, here, columns)  # (n, 2) each, of these columns
    top = all_reduce(comm, xp.ascontiguousarray(sums[:, 0]), "max")  # (n,)
    total = all_reduce(comm, xp.exp(sums[:, 0] - top) / sums[:, 1])  # (n,)
    part = all_reduce(comm, xp.ascontiguousarray(part.T))  # (2, n)
    picked, summed = part  # the target's logit, and Σ x for smoothing
    rest, share = 1 - smoothing, smoothing / classes
    wanted = rest * picked + share * summed if smoothing else picked  # Σ x may be infinite
    losses = xp.where(keep, xp.log(total) + (top - wanted), 0)  # an ignored row may be NaN
    sums = xp.stack([top, 1 / total], 1)  # (n, 2)

    def vjp(g):
        g = xp.where(keep, g, 0)
        return kernel.part_backward(g, logits, sums, here, columns, share, rest)

    return losses, vjp


def vocab_parallel_cross_entropy(
    logits: Tensor, target: Tensor, shard: Shard, *, classes: int | None = None,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """F.cross_entropy of logits (n, C). This rank has their columns shard.index: (n, C/t).

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
