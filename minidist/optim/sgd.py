"""Stochastic gradient descent with momentum and weight decay."""

from collections.abc import Iterable
from typing import Any

from ..kernels import descent
from .optimizer import Optimizer, moments, require_nonnegative


class SGD(Optimizer):
    """torch.optim.SGD (μ momentum, τ dampening, λ weight decay).

    g ← g + λ p;  b ← μ b + (1-τ) g, at first b ← g;
    p ← p - lr · b, or with Nesterov (Sutskever et al. 2013) p ← p - lr · (g + μ b)
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, dampening: float = 0,
        weight_decay: float = 0, nesterov: bool = False, *, maximize: bool = False,
    ):  # fmt: skip
        require_nonnegative(lr=lr, momentum=momentum, weight_decay=weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError(
                f"nesterov with momentum = {momentum}, dampening = {dampening}: it needs "
                "momentum > 0 and dampening = 0"
            )
        super().__init__(
            params,
            {
                "lr": lr, "momentum": momentum, "dampening": dampening,
                "weight_decay": weight_decay, "nesterov": nesterov, "maximize": maximize,
            },
        )  # fmt: skip

    def update(self, p, g, state, group):
        first = "momentum_buffer" not in state
        (b,) = moments(state, p, "momentum_buffer") if group["momentum"] else (None,)
        descent.sgd_(
            p, g, b, lr=group["lr"],
            momentum=group["momentum"], dampening=group["dampening"], nesterov=group["nesterov"],
            weight_decay=group["weight_decay"], first=first,
        )  # fmt: skip
