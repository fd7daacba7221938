"""Optimizer: parameter groups, per-parameter state, and their state_dict, as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor


class Optimizer:
    """Updates parameters from their gradients; subclasses define update(parameter, state, group).

    `params` is an iterable of parameters, or of dicts {"params": [...], "lr": ...} whose options
    override the defaults for their group.
    """

    def __init__(self, params: Iterable[Any], defaults: dict[str, Any]):
        if isinstance(params, Tensor):
            raise TypeError("optimizer: give a list of parameters, not a tensor")
        entries = list(params)
        if not entries:
            raise ValueError("optimizer got no parameters: pass model.parameters()")
        groups = entries if isinstance(entries[0], dict) else [{"params": entries}]
        self.param_groups = [{**defaults, **g, "params": list(g["params"])} for g in groups]
        self.state: dict[Tensor, dict[str, Any]] = {}
        _check(self._numbered())

    def zero_grad(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                p.grad = None

    def step(self) -> None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state.setdefault(p, {"step": 0})
                    state["step"] += 1
                    self.update(p, state, group)

    def update(self, p: Tensor, state: dict[str, Any], group: dict[str, Any]) -> None:
        raise NotImplementedError

    def _numbered(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: state}, "param_groups": [...]}: parameters by their number."""
        number = {p: i for i, p in enumerate(self._numbered())}
        groups = [{**g, "params": [number[p] for p in g["params"]]} for g in self.param_groups]
        return {
            "state": {number[p]: dict(s) for p, s in self.state.items()},
            "param_groups": groups,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        params, groups = self._numbered(), state_dict["param_groups"]
        if [len(g["params"]) for g in groups] != [len(g["params"]) for g in self.param_groups]:
            raise ValueError("load_state_dict: parameter groups of other sizes")
        for own, given in zip(self.param_groups, groups):
            own.update({k: v for k, v in given.items() if k != "params"})
        self.state = {params[i]: _copied(s) for i, s in state_dict["state"].items()}


def _check(params: list[Tensor]) -> None:
    for i, p in enumerate(params):
        if not isinstance(p, Tensor):
            raise TypeError(f"optimizer: parameter {i} is a {type(p).__name__}, not a tensor")
        if not p.is_leaf:
            raise ValueError(f"optimizer: parameter {i} was computed from other tensors: detach it")
    if len({id(p) for p in params}) < len(params):
        raise ValueError("optimizer: a parameter is given twice: it would be updated twice")


def _copied(state: dict[str, Any]) -> dict[str, Any]:
    return {k: v.copy() if isinstance(v, np.ndarray) else v for k, v in state.items()}


def require_positive(name: str, value: float, zero: bool = True) -> None:
    """Refuse a negative hyper-parameter (or zero, unless allowed) by name."""
    if not (value >= 0 if zero else value > 0):
        raise ValueError(f"{name} = {value}: want a number {'>= 0' if zero else '> 0'}")
