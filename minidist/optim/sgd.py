"""Stochastic gradient descent with momentum and weight decay."""

from collections.abc import Iterable
from typing import Any

from .optimizer import Optimizer, require_positive


class SGD(Optimizer):
    """v ← μ v + (g + λ p);  p ← p - lr · v   (at first v ← g + λ p), as torch.optim.SGD."""

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, momentum: float = 0, weight_decay: float = 0
    ):
        for name, value in (("lr", lr), ("momentum", momentum), ("weight_decay", weight_decay)):
            require_positive(name, value)
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    def update(self, p, state, group):
        g = p.grad.data
        if group["weight_decay"]:
            g = g + group["weight_decay"] * p.data
        if group["momentum"]:
            g = self._velocity(g, state, group["momentum"])
        p.data -= group["lr"] * g

    def _velocity(self, g, state, momentum):
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = g.copy()
        else:
            state["momentum_buffer"] *= momentum
            state["momentum_buffer"] += g
        return state["momentum_buffer"]
