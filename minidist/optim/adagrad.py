"""Adagrad: each parameter's rate falls with the gradients that it has seen."""

from collections.abc import Iterable
from typing import Any

from ..kernels import arrays as xp
from ..kernels import descent
from ..kernels.half_precision import sum_dtype
from .optimizer import Optimizer, count_step, moments, require_nonnegative


class Adagrad(Optimizer):
    """Duchi et al. 2011, with torch.optim.Adagrad's arguments (η lr_decay, λ weight decay).

    g ← g + λ p;  s ← s + g²;  p ← p - lr / (1 + (t-1) η) · g / (sqrt(s) + eps)
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, lr_decay: float = 0,
        weight_decay: float = 0, initial_accumulator_value: float = 0, eps: float = 1e-10,
        *, maximize: bool = False,
    ):  # fmt: skip
        defaults = {
            "lr": lr, "lr_decay": lr_decay, "eps": eps, "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
        }  # fmt: skip
        require_nonnegative(**defaults)
        super().__init__(params, {**defaults, "maximize": maximize})
        for group in self.param_groups:
            for p in group["params"]:
                self._begin(p.data, self.state[p], group)

    def _begin(self, p, state, group):
        state["step"] = 0
        state["sum"] = xp.full_like(
            p, group["initial_accumulator_value"], sum_dtype(p.dtype), order="C"
        )

    def update(self, p, g, state, group):
        if not state:
            self._begin(p, state, group)
        lr = group["lr"] / (1 + (count_step(state) - 1) * group["lr_decay"])
        (total,) = moments(state, p, "sum")
        descent.adagrad_(p, g, total, lr=lr, eps=group["eps"], weight_decay=group["weight_decay"])
