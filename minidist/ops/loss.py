"""Losses: softmax cross-entropy, fused with the gradient of its logits."""

import numpy as np

from ..kernels import cross_entropy as kernel
from .op import differentiable

REDUCTIONS = ("mean", "sum", "none")


@differentiable
def _cross_entropy(logits, target):
    losses, e, total = kernel.forward(np.ascontiguousarray(logits), target)
    return losses, lambda g: kernel.backward(g, e, total, target)


def cross_entropy(input, target, *, reduction="mean"):
    """-log softmax(input)[target] in nats: logits (n, V), classes (n,) -> a number, or (n,)."""
    classes = np.asarray(target.data)
    if reduction not in REDUCTIONS:
        raise ValueError(f"cross_entropy: reduction {reduction!r} is not one of {REDUCTIONS}")
    if input.ndim != 2 or classes.shape != input.shape[:1]:
        raise RuntimeError(
            f"cross_entropy: logits {input.shape} and targets {classes.shape}: want (n, V) and (n,)"
        )
    if classes.dtype.kind not in "iu":
        raise RuntimeError(f"cross_entropy: targets are class numbers, not {classes.dtype.name}")
    if classes.size and not (classes.min() >= 0 and classes.max() < input.shape[1]):
        raise IndexError(
            f"cross_entropy: targets from {classes.min()} to {classes.max()} "
            f"for {input.shape[1]} classes"
        )
    losses = _cross_entropy(input, classes)
    return losses if reduction == "none" else getattr(losses, reduction)()
