"""Adam, and AdamW: Adam with decoupled weight decay."""

from collections.abc import Iterable
from typing import Any

from ..kernels import adamw as kernel
from .optimizer import Optimizer, count_step, moments, require_betas, require_nonnegative


class Adam(Optimizer):
    """Kingma & Ba 2015, Algorithm 1, with torch.optim.Adam's arguments (λ weight decay).

    g ← g + λ p;  m ← β1 m + (1-β1) g;  v ← β2 v + (1-β2) g²;
    p ← p - lr · (m / (1-β1ᵗ)) / (sqrt(v / (1-β2ᵗ)) + eps)
    amsgrad (Reddi et al. 2018): the largest v so far for v under the root
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 0, amsgrad: bool = False, *,
        maximize: bool = False, decoupled_weight_decay: bool = False,
    ):  # fmt: skip
        require_nonnegative(lr=lr, eps=eps, weight_decay=weight_decay)
        require_betas(betas)
        super().__init__(
            params,
            {
                "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def update(self, p, g, state, group):
        step, (beta1, beta2) = count_step(state), group["betas"]
        m, v = moments(state, p, "exp_avg", "exp_avg_sq")
        (highest,) = moments(state, p, "max_exp_avg_sq") if group["amsgrad"] else (None,)
        kernel.step_(
            p, g, m, v, step=step, lr=group["lr"], beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"],
            highest=highest,
        )  # fmt: skip


class AdamW(Adam):
    """Loshchilov & Hutter 2019, Algorithm 2, with torch.optim.AdamW's arguments.

    As Adam, but the decay stays out of m and v:  p ← p - lr λ p  for  g ← g + λ p
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8, weight_decay: float = 1e-2, amsgrad: bool = False, *,
        maximize: bool = False,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize,
            decoupled_weight_decay=True,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # an Adam's state makes no Adam of this
            group["decoupled_weight_decay"] = True
