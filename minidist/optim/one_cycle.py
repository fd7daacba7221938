"""OneCycleLR: the learning rate up and down once, momentum the other way."""

from __future__ import annotations

import math
from typing import Any

from .optimizer import Optimizer
from .scheduler import LRScheduler, checked, per_group


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr and down to that start / final_div_factor.

    Smith & Topin 2018. Momentum (or β1) goes the other way, between its two ends. three_phase
    comes down to the start first, in as many steps as up, and only then to the end.
    """

    def __init__(
        self, optimizer: Optimizer, max_lr: float | list[float], total_steps: int | None = None,
        epochs: int | None = None, steps_per_epoch: int | None = None, pct_start: float = 0.3,
        anneal_strategy: str = "cos", cycle_momentum: bool = True,
        base_momentum: float | list[float] = 0.85, max_momentum: float | list[float] = 0.95,
        div_factor: float = 25.0, final_div_factor: float = 1e4, three_phase: bool = False,
        last_epoch: int = -1,
    ):  # fmt: skip
        self.total_steps = _total_steps(total_steps, epochs, steps_per_epoch)
        if not 0 <= pct_start <= 1:
            raise ValueError(f"pct_start = {pct_start}: want a number in [0, 1]")
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(f"anneal_strategy = {anneal_strategy!r}: want 'cos' or 'linear'")
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        up, last = pct_start * self.total_steps - 1, self.total_steps - 1
        down = [("max", "initial", 2 * up), ("initial", "min", last)]
        self.phases = [("initial", "max", up), *(down if three_phase else [("max", "min", last)])]
        self.use_beta1 = "betas" in checked(optimizer).defaults
        if cycle_momentum and not (self.use_beta1 or "momentum" in optimizer.defaults):
            raise ValueError(
                f"{type(optimizer).__name__} has no momentum to cycle: pass cycle_momentum=False"
            )
        if last_epoch == -1:
            peaks = per_group("max_lr", max_lr, optimizer)
            bases = per_group("base_momentum", base_momentum, optimizer)
            tops = per_group("max_momentum", max_momentum, optimizer)
            for group, peak, base, top in zip(optimizer.param_groups, peaks, bases, tops):
                start = peak / div_factor
                group.update(initial_lr=start, max_lr=peak, min_lr=start / final_div_factor)
                if cycle_momentum:
                    group.update(max_momentum=top, base_momentum=base)
        super().__init__(optimizer, last_epoch)

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "cos":
            return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
        return start + (end - start) * share

    def get_lr(self) -> list[float]:
        t = self.last_epoch
        if t > self.total_steps:
            raise ValueError(f"step {t} of a OneCycleLR of total_steps = {self.total_steps}")
        i = next((i for i, phase in enumerate(self.phases) if t <= phase[2]), -1)
        start, end, last = self.phases[i]
        first = self.phases[i - 1][2] if self.phases[i] is not self.phases[0] else 0.0
        share = (t - first) / (last - first)
        if self.cycle_momentum:
            ends = {"initial": "max_momentum", "max": "base_momentum", "min": "max_momentum"}
            for group in self.optimizer.param_groups:
                self._set_momentum(
                    group, self._between(group[ends[start]], group[ends[end]], share)
                )
        groups = self.optimizer.param_groups
        return [self._between(g[f"{start}_lr"], g[f"{end}_lr"], share) for g in groups]

    _resumed = get_lr

    def _set_momentum(self, group: dict[str, Any], value: float) -> None:
        if self.use_beta1:
            group["betas"] = (value, group["betas"][1])
        else:
            group["momentum"] = value


def _total_steps(total: int | None, epochs: int | None, steps_per_epoch: int | None) -> int:
    if total is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError("OneCycleLR: give total_steps, or epochs and steps_per_epoch")
        total = epochs * steps_per_epoch if epochs > 0 else epochs
    if not isinstance(total, int) or total <= 0:
        raise ValueError(f"OneCycleLR: {total} steps in total: want a positive integer")
    return total
