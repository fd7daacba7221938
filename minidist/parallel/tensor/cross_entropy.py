"""Cross-entropy of logits whose classes are shared out over ranks: none of them sees them all."""

from __future__ import annotations

from ...comm import all_reduce
from ...kernels import arrays as xp
from ...nn import functional as F
from ...ops.op import differentiable
from ...tensor.tensor import Tensor
from ..layout import Part


@differentiable(autocast="fp32")
def _losses(logits, target, comm, first, classes, smoothing, keep):
    """Three all-reduces of a number or two a row: the maximum, the sum, the target's logit."""
    columns = first + xp.arange(logits.shape[1])
    real = columns < classes
    x = xp.where(real, logits, -xp.inf)
    top = all_reduce(comm, xp.highest(x, 1), "max")
    e = xp.exp(x - top[:, None])
    total = all_reduce(comm, e.sum(1))
    mine = (target >= first) & (target < first + logits.shape[1])
    rows, at = xp.arange(len(target)), xp.where(mine, target - first, 0)
    told = xp.stack([xp.where(mine, logits[rows, at] if logits.shape[1] else 0, 0),
                     xp.where(real, logits, 0).sum(1)])  # fmt: skip
    picked, summed = all_reduce(comm, told)
    wanted = (1 - smoothing) * picked + smoothing / classes * summed
    losses = (xp.log(total) + top - wanted) * keep

    def vjp(g):
        g = (g * keep)[:, None]
        d = e / total[:, None]
        d -= smoothing / classes * real  # in place: a float times bools would be float64
        d[rows, at] -= (1 - smoothing) * mine.astype(d.dtype)
        return d * g

    return losses, vjp


def vocab_parallel_cross_entropy(
    logits: Tensor, target: Tensor, part: Part, *, classes: int | None = None,
    ignore_index: int = -100, reduction: str = "mean", label_smoothing: float = 0.0,
) -> Tensor:  # fmt: skip
    """F.cross_entropy of logits (n, C), of which this rank has the columns part.index.

    target (n,) is whole on every rank. `classes` (all of part.shape[0] by default): columns from
    there on are padding, left out of the softmax. Label smoothing mixes with the uniform
    distribution over all classes, not over this rank's. Every rank gets the same losses.

    Raises ValueError if the logits are not this rank's columns: gathered ones would be counted once
    a rank, and the loss be too high by log(ranks).
    """
    classes = part.shape[0] if classes is None else classes
    if logits.ndim != 2 or logits.shape[1] != len(part.index):
        raise ValueError(
            f"vocab_parallel_cross_entropy: logits {logits.shape}: want (n, {len(part.index)}), "
            "this rank's columns, not gathered ones"
        )
    if reduction not in ("mean", "sum", "none"):
        raise ValueError(f"reduction {reduction!r} is not 'mean', 'sum' or 'none'")
    if part.comm.size == 1 and classes == part.shape[0]:
        return F.cross_entropy(
            logits, target, ignore_index=ignore_index, reduction=reduction,
            label_smoothing=label_smoothing,
        )  # fmt: skip
    keep = target.data != ignore_index
    known = xp.where(keep, target.data, 0)
    if xp.outside(known, classes):
        raise IndexError(f"target {known.max()} is out of bounds: there are {classes} classes")
    first = int(part.index[0])
    losses = _losses(logits, known, part.comm, first, classes, label_smoothing, keep)
    if reduction == "none":
        return losses
    return losses.sum() if reduction == "sum" else losses.sum() / float(keep.sum())
