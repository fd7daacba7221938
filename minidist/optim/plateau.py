"""ReduceLROnPlateau: a lower learning rate when a metric stops improving."""

from __future__ import annotations

import math
from typing import Any

from .optimizer import Optimizer
from .scheduler import LRScheduler, checked, per_group


class ReduceLROnPlateau(LRScheduler):
    """lr ← max(lr · factor, min_lr) when a metric has not improved for more than `patience` steps.

    Better than the best by `threshold` counts, absolute or relative; after a cut `cooldown` steps
    pass before bad ones count again.
    """

    def __init__(
        self, optimizer: Optimizer, mode: str = "min", factor: float = 0.1, patience: int = 10,
        threshold: float = 1e-4, threshold_mode: str = "rel", cooldown: int = 0,
        min_lr: float | list[float] = 0, eps: float = 1e-8,
    ):  # fmt: skip
        if factor >= 1:
            raise ValueError(f"factor = {factor}: want a number < 1")
        if mode not in ("min", "max") or threshold_mode not in ("rel", "abs"):
            raise ValueError(
                f"mode = {mode!r}, threshold_mode = {threshold_mode!r}: want 'min' or 'max', "
                "'rel' or 'abs'"
            )
        self.optimizer, self.mode, self.factor, self.patience = optimizer, mode, factor, patience
        self.threshold, self.threshold_mode, self.cooldown = threshold, threshold_mode, cooldown
        self.min_lr, self.eps = min_lr, eps
        per_group("min_lr", min_lr, checked(optimizer))
        self.best = math.inf if mode == "min" else -math.inf
        self.cooldown_counter = self.num_bad_epochs = self.last_epoch = 0
        self._last_lr = self._rates()

    def step(self, metrics: Any) -> None:  # type: ignore[override]
        self.last_epoch += 1
        value = float(metrics)
        if self._is_better(value):
            self.best, self.num_bad_epochs = value, 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown_counter - 1, 0
        if self.num_bad_epochs > self.patience:
            self.cooldown_counter, self.num_bad_epochs = self.cooldown, 0
            least = per_group("min_lr", self.min_lr, self.optimizer)
            self._set([self._reduced(*pair) for pair in zip(self._rates(), least)])
        self._last_lr = self._rates()

    def _reduced(self, lr: float, least: float) -> float:
        new = max(lr * self.factor, least)
        return new if lr - new > self.eps else lr

    def _is_better(self, value: float) -> bool:
        sign = 1 if self.mode == "max" else -1
        if self.threshold_mode == "rel":
            return sign * value > sign * self.best * (1 + sign * self.threshold)
        return sign * value > sign * self.best + self.threshold
