"""Muon: momentum made orthogonal, for the weight matrices of hidden layers."""

import math
from collections.abc import Iterable
from typing import Any

from ..kernels.newton_schulz import orthogonalized
from .optimizer import Optimizer, moments, require_nonnegative

RATES = {
    "original": lambda rows, columns: math.sqrt(max(1, rows / columns)),
    "match_rms_adamw": lambda rows, columns: 0.2 * math.sqrt(max(rows, columns)),
}


class Muon(Optimizer):
    """Jordan et al. 2024, with torch.optim.Muon's arguments (μ momentum, λ weight decay).

    b ← μ b + (1-μ) g;  u = b, with Nesterov u = μ b + (1-μ) g;
    p ← p - lr λ p - lr · adjust(shape) · NS(u)
    NS is ns_steps Newton-Schulz iterations. They run in the dtype of the parameter, where PyTorch
    rounds to bfloat16. Biases, gains and embeddings belong to another optimiser.
    """

    elementwise = False

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-3, weight_decay: float = 0.1,
        momentum: float = 0.95, nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7, ns_steps: int = 5, adjust_lr_fn: str | None = None,
    ):  # fmt: skip
        require_nonnegative(lr=lr, weight_decay=weight_decay, momentum=momentum)
        if adjust_lr_fn is not None and adjust_lr_fn not in RATES:
            raise ValueError(f"adjust_lr_fn = {adjust_lr_fn!r}: want one of {', '.join(RATES)}")
        if len(ns_coefficients) != 3 or ns_steps >= 100:
            raise ValueError(
                f"{len(ns_coefficients)} ns_coefficients, {ns_steps} ns_steps: want 3, under 100"
            )
        super().__init__(
            params,
            {
                "lr": lr, "weight_decay": weight_decay, "momentum": momentum,
                "nesterov": nesterov, "ns_coefficients": ns_coefficients, "eps": eps,
                "ns_steps": ns_steps, "adjust_lr_fn": adjust_lr_fn,
            },
        )  # fmt: skip

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        super().add_param_group(param_group)
        shapes = [p.shape for p in self.param_groups[-1]["params"]]
        if any(len(s) != 2 for s in shapes):
            self.param_groups.pop()
            raise ValueError(
                f"Muon takes matrices only, not parameters of shapes {shapes}: give the others "
                "to AdamW"
            )

    def update(self, p, g, state, group):
        (b,), momentum = moments(state, p, "momentum_buffer"), group["momentum"]
        g = (1 - momentum) * g
        b *= momentum
        b += g
        step = orthogonalized(
            momentum * b + g if group["nesterov"] else b,
            group["ns_coefficients"], group["ns_steps"], group["eps"],
        )  # fmt: skip
        p *= 1 - group["lr"] * group["weight_decay"]
        p -= group["lr"] * RATES[group["adjust_lr_fn"] or "original"](*p.shape) * step
