"""Adam, and AdamW: Adam with decoupled weight decay."""

from collections.abc import Iterable
from typing import Any

from ..kernels import adamw as kernel
from ..kernels import arrays as xp
from ..kernels.capture import capturing
from ..tensor.tensor import Tensor
from .optimizer import Optimizer, moments, require_betas, require_nonnegative


class Adam(Optimizer):
    """Kingma & Ba 2015, Algorithm 1, with torch.optim.Adam's arguments (λ weight decay).

    g ← g + λ p;  m ← β1 m + (1-β1) g;  v ← β2 v + (1-β2) g²;
    p ← p - lr · (m / (1-β1ᵗ)) / (sqrt(v / (1-β2ᵗ)) + eps)
    amsgrad (Reddi et al. 2018): the largest v so far for v under the root
    capturable: t is counted where the parameters are, so that a step captured in a CUDA graph
    counts on when it is replayed. lr may be a tensor there, which replays then follow: change it
    in place (lr.fill_()).
    """

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 0,
        amsgrad: bool = False, *, maximize: bool = False, capturable: bool = False,
        decoupled_weight_decay: bool = False,
    ):  # fmt: skip
        require_nonnegative(lr=float(lr), eps=eps, weight_decay=weight_decay)
        require_betas(betas)
        super().__init__(
            params,
            {
                "lr": lr, "betas": tuple(betas), "eps": eps, "weight_decay": weight_decay,
                "amsgrad": amsgrad, "maximize": maximize, "capturable": capturable,
                "decoupled_weight_decay": decoupled_weight_decay,
            },
        )  # fmt: skip

    def update(self, p, g, state, group):
        if capturing():
            _want_capturable(state, group)
        step, lr = _there(p, state, group) if group["capturable"] else _here(state, group)
        beta1, beta2 = group["betas"]
        m, v = moments(state, p, "exp_avg", "exp_avg_sq")
        (highest,) = moments(state, p, "max_exp_avg_sq") if group["amsgrad"] else (None,)
        kernel.step_(
            p, g, m, v, step=step, lr=lr, beta1=beta1, beta2=beta2, eps=group["eps"],
            weight_decay=group["weight_decay"], decoupled=group["decoupled_weight_decay"],
            highest=highest,
        )  # fmt: skip


class AdamW(Adam):
    """Loshchilov & Hutter 2019, Algorithm 2, with torch.optim.AdamW's arguments.

    As Adam, but the decay stays out of m and v:  p ← p - lr λ p  for  g ← g + λ p
    """

    def __init__(
        self, params: Iterable[Any], lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8, weight_decay: float = 1e-2,
        amsgrad: bool = False, *, maximize: bool = False, capturable: bool = False,
    ):  # fmt: skip
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize, capturable=capturable,
            decoupled_weight_decay=True,
        )  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for group in self.param_groups:  # an Adam's state makes no Adam of this
            group["decoupled_weight_decay"] = True


def _here(state: dict[str, Any], group: dict[str, Any]) -> tuple[int, float]:
    """The number of this step, and lr, as numbers."""
    state["step"] = step = _steps(state) + 1
    return step, float(group["lr"])


def _steps(state: dict[str, Any]) -> int:
    step = state.get("step", 0)
    return int(step.reshape(())) if isinstance(step, xp.ndarray) else int(step)


def _there(
    p: xp.ndarray, state: dict[str, Any], group: dict[str, Any]
) -> tuple[xp.ndarray, float | xp.ndarray]:
    """How many steps there were, an array beside p; and lr, there too if it is a tensor."""
    step, lr = state.get("step"), group["lr"]
    if not isinstance(step, xp.ndarray) or step.shape or xp.on_gpu(step) != xp.on_gpu(p):
        state["step"] = xp.full_like(p, _steps(state), xp.int64, shape=())
    if not isinstance(lr, Tensor):
        return state["step"], float(lr)
    if lr.ndim or xp.on_gpu(lr.data) != xp.on_gpu(p):
        raise RuntimeError(
            f"Adam(capturable=True): lr is a tensor of shape {lr.shape} on {lr.device}: want a "
            "number, or a tensor of shape () where the parameters are"
        )
    return state["step"], lr.data


def _want_capturable(state: dict[str, Any], group: dict[str, Any]) -> None:
    """Refuse what a replay would do wrong in silence."""
    if not group["capturable"]:
        raise RuntimeError(
            "this Adam's step cannot be captured in a CUDA graph: its step count is a number, and "
            "would be the same at every replay: make it with capturable=True"
        )
    if not isinstance(state.get("step"), xp.ndarray):
        raise RuntimeError(
            "Adam's first step cannot be captured in a CUDA graph: every replay would start from "
            "moments of 0: take a step or more before the capture"
        )
