"""Mixed precision: loss scaling that finds its scale by itself (Micikevicius et al. 2018, 3.2).

Gradients in float16 vanish below 6e-8. Multiplied by a power of two before backward and divided by
it before the step they do not, and nothing else changes: a power of two moves the exponent alone,
so training with and without it is equal to the bit until something over- or underflows.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..comm import Communicator, all_reduce
from ..kernels import arrays as xp
from ..kernels.half_precision import BFLOAT16, wide
from ..kernels.vector_norm import vector_norm

if TYPE_CHECKING:
    from ..optim.optimizer import Optimizer
    from ..tensor.tensor import Tensor


class GradScaler:
    """torch.amp.GradScaler: scale(loss).backward(); step(optimizer); update().

    A step whose gradients hold inf or NaN on any rank of `comm` is skipped on all of them: the
    weights stay as they are, to the bit. The scale then shrinks by backoff_factor, though not
    below min_scale, and not before the hysteresis-th such step since it last grew (Megatron-LM's
    rule; PyTorch's is 1). After growth_interval good steps in a row it grows by growth_factor.
    """

    def __init__(
        self, init_scale: float = 2.0**16, growth_factor: float = 2.0, backoff_factor: float = 0.5,
        growth_interval: int = 2000, enabled: bool = True, *, min_scale: float = 0.0,
        hysteresis: int = 1, comm: Communicator | None = None,
    ):  # fmt: skip
        if not (growth_factor > 1 > backoff_factor > 0):
            raise ValueError(
                f"growth_factor {growth_factor}, backoff_factor {backoff_factor}: want more than "
                "1, and between 0 and 1"
            )
        if growth_interval < 1 or hysteresis < 1 or not init_scale > 0:
            raise ValueError(
                f"init_scale {init_scale}, growth_interval {growth_interval}, hysteresis "
                f"{hysteresis}: want more than 0"
            )
        self.growth_factor, self.backoff_factor = growth_factor, backoff_factor
        self.growth_interval, self.enabled = growth_interval, enabled
        self.min_scale, self.hysteresis, self.comm = min_scale, hysteresis, comm
        self._scale, self._good, self._patience = float(init_scale), 0, hysteresis
        self._found: dict[int, bool] = {}  # by optimizer: whether its gradients overflowed
        self._stepped: set[int] = set()

    def scale(self, outputs: Tensor) -> Tensor:
        """The loss times the scale."""
        return outputs * self._scale if self.enabled else outputs

    def get_scale(self) -> float:
        return self._scale if self.enabled else 1.0

    def is_enabled(self) -> bool:
        return self.enabled

    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the optimizer's gradients by the scale: to clip them, say, before the step."""
        if not self.enabled:
            return
        if id(optimizer) in self._found:
            raise RuntimeError("unscale_() was called on this optimizer since the last update()")
        params = (p for group in optimizer.param_groups for p in group["params"])
        grads = [p.grad.data for p in params if p.grad is not None]
        for g in grads:
            if g.dtype == BFLOAT16:
                g[...] = wide(g) / self._scale
            else:
                g *= g.dtype.type(1 / self._scale)
        # The largest, not a sum, which may overflow where no gradient did. On a GPU this is the
        # one number that a step waits for: whether it is to be taken.
        self._found[id(optimizer)] = self._vote(not math.isfinite(vector_norm(grads, math.inf)))

    def _vote(self, overflow: bool) -> bool:
        """Whether any rank saw an overflow."""
        if self.comm is None:
            return overflow
        return bool(all_reduce(self.comm, xp.array([overflow], xp.int64), op="max")[0])

    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """optimizer.step(), unless its gradients overflowed somewhere."""
        if not self.enabled:
            return optimizer.step(*args, **kwargs)
        if id(optimizer) in self._stepped:  # its new gradients would still be scaled
            raise RuntimeError("step() was called on this optimizer since the last update()")
        if id(optimizer) not in self._found:
            self.unscale_(optimizer)
        self._stepped.add(id(optimizer))
        return None if self._found[id(optimizer)] else optimizer.step(*args, **kwargs)

    def update(self, new_scale: float | None = None) -> None:
        """The scale of the next step, once every optimizer has stepped."""
        if not self.enabled:
            return
        if not self._found and new_scale is None:
            raise RuntimeError("update() before any step(): no gradients were looked at")
        overflow, self._found, self._stepped = any(self._found.values()), {}, set()
        if new_scale is not None:
            self._scale = float(new_scale)
        elif overflow:
            self._good, self._patience = 0, self._patience - 1
            if self._patience <= 0:
                self._scale = max(self._scale * self.backoff_factor, self.min_scale)
        else:
            self._good += 1
            if self._good == self.growth_interval:
                self._scale, self._good = self._scale * self.growth_factor, 0
                self._patience = self.hysteresis

    def state_dict(self) -> dict[str, Any]:
        """PyTorch's keys, and the patience that is left."""
        if not self.enabled:
            return {}
        return {
            "scale": self._scale, "growth_factor": self.growth_factor,
            "backoff_factor": self.backoff_factor, "growth_interval": self.growth_interval,
            "_growth_tracker": self._good, "_patience": self._patience,
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if not self.enabled:
            return
        if not state_dict:
            raise RuntimeError("an empty state_dict: was it saved by a scaler that was disabled?")
        self.growth_factor = state_dict["growth_factor"]
        self.backoff_factor = state_dict["backoff_factor"]
        self.growth_interval = state_dict["growth_interval"]
        self._scale, self._good = float(state_dict["scale"]), int(state_dict["_growth_tracker"])
        self._patience = state_dict.get("_patience", self.hysteresis)
