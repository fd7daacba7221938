"""LRScheduler: what all schedules of the learning rate share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..tensor.tensor import Tensor
from .optimizer import Optimizer


class LRScheduler:
    """Sets the "lr" of every group: once when made, for epoch 0, then at every step().

    A subclass defines get_lr, or only ratio(t): lr at epoch t over lr at t-1 (over the initial
    one at t = 0). Ratios multiply, so several schedulers can share an optimizer.
    """

    _hidden: tuple[str, ...] = ("optimizer",)  # what is no part of the state

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1):
        self.optimizer = checked(optimizer)
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", _number(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"group {i} has no 'initial_lr': last_epoch = {last_epoch} continues a "
                    "schedule, so load the optimizer's state_dict first"
                )
        self.base_lrs = [group["initial_lr"] for group in optimizer.param_groups]
        self.last_epoch = last_epoch + 1
        self._set(self.get_lr() if last_epoch == -1 else self._resumed())

    def ratio(self, t: int) -> float:
        raise NotImplementedError(f"{type(self).__name__} defines neither get_lr() nor ratio()")

    def get_lr(self) -> list[float]:
        """The rates at last_epoch, one a group, from those there are."""
        ratio = self.ratio(self.last_epoch)
        return [lr * ratio for lr in self._rates()]

    def step(self) -> None:
        """One epoch on: after optimizer.step()."""
        self.last_epoch += 1
        self._set(self.get_lr())

    def get_last_lr(self) -> list[float]:
        return self._last_lr

    def _set(self, rates: Sequence[float]) -> None:
        for group, lr in zip(self.optimizer.param_groups, rates, strict=True):
            _give(group, lr)
        self._last_lr = self._rates()

    def _rates(self) -> list[float]:
        """Those there are, as numbers: a group's tensor changes with every step."""
        return [_number(group["lr"]) for group in self.optimizer.param_groups]

    def _resumed(self) -> list[float]:
        """Made with last_epoch: the rates are those that were loaded."""
        return self._rates()

    def _restart(self) -> None:
        """Back to epoch 0, from the initial rates."""
        for group, lr in zip(self.optimizer.param_groups, self.base_lrs, strict=True):
            _give(group, lr)
        self.last_epoch = 0
        self._set(self.get_lr())

    def state_dict(self) -> dict[str, Any]:
        """Every attribute but the optimizer."""
        return {k: v for k, v in vars(self).items() if k not in self._hidden}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        vars(self).update({k: v for k, v in state_dict.items() if k not in self._hidden})


def _number(lr: Any) -> Any:
    return lr.item() if isinstance(lr, Tensor) else lr


def _give(group: dict[str, Any], lr: Any) -> None:
    """The group's rate; a tensor stays the same one, which a captured graph reads."""
    if isinstance(group["lr"], Tensor):
        group["lr"].fill_(_number(lr))
    else:
        group["lr"] = lr


def checked(optimizer: Optimizer) -> Optimizer:
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"a scheduler needs an Optimizer, not a {type(optimizer).__name__}")
    return optimizer


def per_group(name: str, value: Any, optimizer: Optimizer) -> list[Any]:
    """A value for each group, from one for all of them or a list."""
    groups = len(optimizer.param_groups)
    if not isinstance(value, list | tuple):
        return [value] * groups
    if len(value) != groups:
        raise ValueError(f"{name}: {len(value)} values for {groups} parameter groups")
    return list(value)
