"""Lion: steps of one size, by the sign of the momentum."""

from collections.abc import Iterable
from typing import Any

from ..kernels import descent
from .optimizer import Optimizer, moments, require_betas, require_nonnegative


class Lion(Optimizer):
    """Chen et al. 2023, Algorithm 2 (λ weight decay); PyTorch has none.

    p ← p - lr · (sign(β1 m + (1-β1) g) + λ p);  m ← β2 m + (1-β2) g
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-4, betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0, *, maximize: bool = False,
    ):  # fmt: skip
        require_nonnegative(lr=lr, weight_decay=weight_decay)
        require_betas(betas)
        options = {"lr": lr, "betas": tuple(betas), "weight_decay": weight_decay}
        super().__init__(params, {**options, "maximize": maximize})

    def update(self, p, g, state, group):
        (m,), (beta1, beta2) = moments(state, p, "exp_avg"), group["betas"]
        descent.lion_(
            p, g, m, lr=group["lr"], beta1=beta1, beta2=beta2, weight_decay=group["weight_decay"]
        )
