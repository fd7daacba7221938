"""AdamW: Adam with decoupled weight decay."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..kernels import adamw as kernel
from .optimizer import Optimizer, require_positive


class AdamW(Optimizer):
    """Loshchilov & Hutter 2019, Algorithm 2, with torch.optim.AdamW's arguments.

    m ← β1 m + (1-β1) g;  v ← β2 v + (1-β2) g²;
    p ← p - lr λ p - lr · (m / (1-β1ᵗ)) / (sqrt(v / (1-β2ᵗ)) + eps)
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2,
    ):  # fmt: skip
        for name, value in (("lr", lr), ("eps", eps), ("weight_decay", weight_decay)):
            require_positive(name, value)
        if not all(0 <= b < 1 for b in betas):
            raise ValueError(f"betas = {betas}: want two numbers in [0, 1)")
        super().__init__(
            params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        )

    def update(self, p, state, group):
        if "exp_avg" not in state:
            state["exp_avg"], state["exp_avg_sq"] = np.zeros_like(p.data), np.zeros_like(p.data)
        beta1, beta2 = group["betas"]
        kernel.step_(
            p.data, np.ascontiguousarray(p.grad.data), state["exp_avg"], state["exp_avg_sq"],
            step=state["step"], lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"],
        )  # fmt: skip
