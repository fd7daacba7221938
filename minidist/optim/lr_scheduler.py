"""Learning rates over time: the cosine schedule with warmup, and PyTorch's schedulers.

`warmup_cosine` is the one that `minidist train` uses: a plain function of the step.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from ..absent import explain as _explain
from .one_cycle import OneCycleLR
from .optimizer import Optimizer
from .plateau import ReduceLROnPlateau
from .scheduler import LRScheduler, checked, per_group

_explain(__name__)  # names that PyTorch has and minidist not

__all__ = [
    "CosineAnnealingLR",
    "ExponentialLR",
    "LRScheduler",
    "LambdaLR",
    "LinearLR",
    "MultiStepLR",
    "OneCycleLR",
    "ReduceLROnPlateau",
    "SequentialLR",
    "StepLR",
    "warmup_cosine",
]


def warmup_cosine(step: int, steps: int, warmup: int, lr: float, final: float) -> float:
    """The cosine schedule with warmup: the learning rate of a step, numbered from 0.

    It rises in a line from lr/warmup at step 0 to lr, and then falls along half a cosine to `final`
    at the last step (Loshchilov & Hutter 2017, SGDR, one cycle).
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * progress))


class LambdaLR(LRScheduler):
    """lr_t = lr_0 · f(t), f a function or one for each group (not part of the state_dict)."""

    _hidden = ("optimizer", "lr_lambdas")

    def __init__(
        self, optimizer: Optimizer, lr_lambda: Callable[[int], float] | list, last_epoch: int = -1
    ):
        self.lr_lambdas = per_group("lr_lambda", lr_lambda, checked(optimizer))
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[float]:
        return [lr * f(self.last_epoch) for lr, f in zip(self.base_lrs, self.lr_lambdas)]

    _resumed = get_lr


class StepLR(LRScheduler):
    """lr_t = lr_0 · γ^⌊t / step_size⌋."""

    def __init__(
        self, optimizer: Optimizer, step_size: int, gamma: float = 0.1, last_epoch: int = -1
    ):
        self.step_size, self.gamma = step_size, gamma
        super().__init__(optimizer, last_epoch)

    def ratio(self, t: int) -> float:
        return self.gamma if t and t % self.step_size == 0 else 1.0

    _resumed = LRScheduler.get_lr


class MultiStepLR(LRScheduler):
    """lr_t = lr_0 · γ^(how many milestones are ≤ t)."""

    def __init__(
        self, optimizer: Optimizer, milestones: Iterable[int], gamma: float = 0.1,
        last_epoch: int = -1,
    ):  # fmt: skip
        self.milestones, self.gamma = Counter(milestones), gamma
        super().__init__(optimizer, last_epoch)

    def ratio(self, t: int) -> float:
        return self.gamma ** self.milestones[t]

    _resumed = LRScheduler.get_lr


class ExponentialLR(LRScheduler):
    """lr_t = lr_0 · γᵗ."""

    def __init__(self, optimizer: Optimizer, gamma: float, last_epoch: int = -1):
        self.gamma = gamma
        super().__init__(optimizer, last_epoch)

    def ratio(self, t: int) -> float:
        return self.gamma if t else 1.0


class LinearLR(LRScheduler):
    """lr_t = lr_0 · f(t), f a line from start_factor at 0 to end_factor at total_iters: warm-up."""

    def __init__(
        self, optimizer: Optimizer, start_factor: float = 1 / 3, end_factor: float = 1.0,
        total_iters: int = 5, last_epoch: int = -1,
    ):  # fmt: skip
        if not 0 < start_factor <= 1:
            raise ValueError(f"start_factor = {start_factor}: want a number in (0, 1]")
        if not 0 <= end_factor <= 1:
            raise ValueError(f"end_factor = {end_factor}: want a number in [0, 1]")
        self.start_factor, self.end_factor = start_factor, end_factor
        self.total_iters = total_iters
        super().__init__(optimizer, last_epoch)

    def ratio(self, t: int) -> float:
        if t == 0:
            return self.start_factor
        if t > self.total_iters:
            return 1.0
        slope = self.end_factor - self.start_factor
        return 1 + slope / (self.total_iters * self.start_factor + (t - 1) * slope)


class CosineAnnealingLR(LRScheduler):
    """lr_t = η + (lr_0 - η) (1 + cos(π t / T_max)) / 2, η = eta_min (Loshchilov & Hutter 2017)."""

    def __init__(
        self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1
    ):
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def _height(self, t: int) -> float:
        return (1 + math.cos(math.pi * t / self.T_max)) / 2

    def get_lr(self) -> list[float]:
        t, low, rates = self.last_epoch, self.eta_min, self._rates()
        if t == 0:
            return rates
        if (t - 1 - self.T_max) % (2 * self.T_max) == 0:  # up from the bottom, where a ratio is 0/0
            return [lr + (base - low) * self._height(t) for lr, base in zip(rates, self.base_lrs)]
        ratio = self._height(t) / self._height(t - 1)
        return [low + (lr - low) * ratio for lr in rates]


class SequentialLR(LRScheduler):
    """One scheduler after the other: number i begins, at its epoch 0, at milestones[i - 1]."""

    _hidden = ("optimizer", "_schedulers")

    def __init__(
        self, optimizer: Optimizer, schedulers: list[LRScheduler], milestones: list[int],
        last_epoch: int = -1,
    ):  # fmt: skip
        if not schedulers or len(milestones) != len(schedulers) - 1:
            raise ValueError(
                f"SequentialLR: {len(milestones)} milestones for {len(schedulers)} schedulers: "
                "want one fewer, and at least one scheduler"
            )
        for i, scheduler in enumerate(schedulers):
            if isinstance(scheduler, ReduceLROnPlateau):
                raise ValueError(f"SequentialLR: scheduler {i} needs a metric at every step")
            if scheduler.optimizer is not optimizer:
                raise ValueError(f"SequentialLR: scheduler {i} belongs to another optimizer")
        self.optimizer, self._schedulers, self._milestones = optimizer, schedulers, milestones
        self.last_epoch = last_epoch + 1
        self._forward(self._schedulers[bisect_right(milestones, 0)]._restart)

    def step(self) -> None:
        self.last_epoch += 1
        i = bisect_right(self._milestones, self.last_epoch)
        begins = i > 0 and self._milestones[i - 1] == self.last_epoch
        self._forward(self._schedulers[i]._restart if begins else self._schedulers[i].step)

    def _forward(self, move: Callable[[], None]) -> None:
        move()
        self._last_lr = self._rates()

    def _restart(self) -> None:
        self.last_epoch = 0
        self._forward(self._schedulers[bisect_right(self._milestones, 0)]._restart)

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        for scheduler, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            scheduler.load_state_dict(state)
