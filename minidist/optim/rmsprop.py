"""RMSprop: the gradient over the root of its recent mean square."""

from collections.abc import Iterable
from typing import Any

from ..kernels import descent
from .optimizer import Optimizer, count_step, moments, require_nonnegative


class RMSprop(Optimizer):
    """Hinton 2012 (lecture 6e); centred as in Graves 2013; torch.optim.RMSprop's arguments.

    g ← g + λ p;  v ← α v + (1-α) g²;  d = g / (sqrt(v) + eps);  p ← p - lr · d
    centered: a ← α a + (1-α) g, and v - a² for v under the root;
    momentum: b ← μ b + d, and b for d in the step
    """

    def __init__(
        self, params: Iterable[Any], lr: float = 1e-2, alpha: float = 0.99, eps: float = 1e-8,
        weight_decay: float = 0, momentum: float = 0, centered: bool = False,
        *, maximize: bool = False,
    ):  # fmt: skip
        numbers = {
            "lr": lr, "momentum": momentum, "alpha": alpha, "eps": eps,
            "weight_decay": weight_decay,
        }  # fmt: skip
        require_nonnegative(**numbers)
        super().__init__(params, {**numbers, "centered": centered, "maximize": maximize})

    def update(self, p, g, state, group):
        count_step(state)
        (v,) = moments(state, p, "square_avg")
        (b,) = moments(state, p, "momentum_buffer") if group["momentum"] else (None,)
        (a,) = moments(state, p, "grad_avg") if group["centered"] else (None,)
        descent.rmsprop_(
            p, g, v, a, b, lr=group["lr"], alpha=group["alpha"], eps=group["eps"],
            weight_decay=group["weight_decay"], momentum=group["momentum"],
        )  # fmt: skip
