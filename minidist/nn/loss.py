"""Loss layers: each a function of nn.functional with its options."""

from __future__ import annotations

from typing import Any

from ..tensor.tensor import Tensor
from . import functional as F
from .module import Module


class _Loss(Module):
    """What all losses share: a reduction, and options that their function takes by name."""

    options: tuple[str, ...] = ()
    function: Any

    def __init__(self, *, reduction: str = "mean"):
        self.reduction = reduction

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        options = {name: getattr(self, name) for name in self.options}
        return self.function(input, target, reduction=self.reduction, **options)


class MSELoss(_Loss):
    """(x - t)²."""

    function = staticmethod(F.mse_loss)


class L1Loss(_Loss):
    """|x - t|."""

    function = staticmethod(F.l1_loss)


class HuberLoss(_Loss):
    """Quadratic up to delta, then linear."""

    function, options = staticmethod(F.huber_loss), ("delta",)

    def __init__(self, reduction: str = "mean", delta: float = 1.0):
        self.reduction, self.delta = reduction, delta


class SmoothL1Loss(_Loss):
    """Quadratic up to beta, then of slope 1."""

    function, options = staticmethod(F.smooth_l1_loss), ("beta",)

    def __init__(self, *, reduction: str = "mean", beta: float = 1.0):
        self.reduction, self.beta = reduction, beta


class KLDivLoss(_Loss):
    """t·(log t - x) of log-probabilities x."""

    function, options = staticmethod(F.kl_div), ("log_target",)

    def __init__(self, *, reduction: str = "mean", log_target: bool = False):
        self.reduction, self.log_target = reduction, log_target


class _Weighted(_Loss):
    """A loss with a weight, which is a buffer, as in PyTorch."""

    options: tuple[str, ...] = ("weight",)

    def __init__(self, weight: Tensor | None = None, *, reduction: str = "mean"):
        self.reduction = reduction
        self.register_buffer("weight", weight)


class BCELoss(_Weighted):
    """Binary cross-entropy of probabilities."""

    function = staticmethod(F.binary_cross_entropy)


class BCEWithLogitsLoss(_Weighted):
    """Binary cross-entropy of logits; pos_weight scales the positive term."""

    function = staticmethod(F.binary_cross_entropy_with_logits)
    options = ("weight", "pos_weight")

    def __init__(
        self, weight: Tensor | None = None, *, reduction: str = "mean",
        pos_weight: Tensor | None = None,
    ):  # fmt: skip
        super().__init__(weight, reduction=reduction)
        self.register_buffer("pos_weight", pos_weight)


class NLLLoss(_Weighted):
    """-x[target] of log-probabilities."""

    function = staticmethod(F.nll_loss)
    options: tuple[str, ...] = ("weight", "ignore_index")

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean"
    ):
        super().__init__(weight, reduction=reduction)
        self.ignore_index = ignore_index


class CrossEntropyLoss(NLLLoss):
    """-log softmax(x)[target] of logits; targets are classes or probabilities."""

    function = staticmethod(F.cross_entropy)
    options = ("weight", "ignore_index", "label_smoothing")

    def __init__(
        self, weight: Tensor | None = None, *, ignore_index: int = -100, reduction: str = "mean",
        label_smoothing: float = 0.0,
    ):  # fmt: skip
        super().__init__(weight, ignore_index=ignore_index, reduction=reduction)
        self.label_smoothing = label_smoothing


class CTCLoss(Module):
    """-log Σ p(path) over the alignments of each target."""

    def __init__(self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False):
        self.blank, self.reduction, self.zero_infinity = blank, reduction, zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        how = self.blank, self.reduction, self.zero_infinity
        return F.ctc_loss(log_probs, targets, input_lengths, target_lengths, *how)
