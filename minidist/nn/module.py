"""Module and Parameter: a tree of named parameters, as in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..tensor import Tensor


class Parameter(Tensor):
    """A Tensor that a Module trains."""

    __slots__ = ()

    def __init__(self, data: Any, requires_grad: bool = True):
        super().__init__(data, requires_grad)
        self.data = np.asarray(self.data, order="C")  # optimisers go through it tile by tile

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class Module:
    """A function with parameters: subclasses set attributes in __init__ and define forward."""

    training = True

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} defines no forward()")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.forward(*args, **kwargs)

    # The tree

    def named_children(self) -> Iterator[tuple[str, Module]]:
        return ((k, v) for k, v in vars(self).items() if isinstance(v, Module))

    def named_modules(self, prefix: str = "") -> Iterator[tuple[str, Module]]:
        """This module and all below, with dotted names."""
        yield prefix, self
        for name, child in self.named_children():
            yield from child.named_modules(f"{prefix}.{name}" if prefix else name)

    def modules(self) -> Iterator[Module]:
        return (m for _, m in self.named_modules())

    def named_parameters(self, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name; one that is shared comes once, by its first."""
        seen: set[int] = set()
        for prefix, module in self.named_modules():
            for name, value in vars(module).items():
                if isinstance(value, Parameter) and not (remove_duplicate and id(value) in seen):
                    seen.add(id(value))
                    yield f"{prefix}.{name}" if prefix else name, value

    def parameters(self) -> Iterator[Parameter]:
        return (p for _, p in self.named_parameters())

    # State

    def state_dict(self) -> dict[str, np.ndarray]:
        """The parameters' arrays by name (shared, not copied)."""
        return {name: p.data for name, p in self.named_parameters(remove_duplicate=False)}

    def load_state_dict(self, state: dict[str, Any], strict: bool = True) -> None:
        """Copy arrays in by name; with strict, names must match exactly. Shapes always must."""
        own = dict(self.named_parameters(remove_duplicate=False))
        missing, unexpected = sorted(own.keys() - state), sorted(state.keys() - own)
        if strict and (missing or unexpected):
            raise RuntimeError(f"load_state_dict: missing {missing}, unexpected {unexpected}")
        arrays = {k: np.asarray(getattr(v, "data", v)) for k, v in state.items() if k in own}
        for name, array in arrays.items():
            if array.shape != own[name].shape:
                raise RuntimeError(
                    f"load_state_dict: {name} is {own[name].shape}, got {array.shape}"
                )
        for name, array in arrays.items():
            own[name].data[...] = array

    def zero_grad(self) -> None:
        for p in self.parameters():
            p.grad = None

    def train(self, mode: bool = True) -> Module:
        for m in self.modules():
            m.training = mode
        return self

    def eval(self) -> Module:
        return self.train(False)

    def requires_grad_(self, requires_grad: bool = True) -> Module:
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def to(self, dtype: Any) -> Module:
        """Convert every parameter, in place."""
        for p in self.parameters():
            p.data, p.grad = Tensor(p.data, dtype=dtype).data, None
        return self

    def double(self) -> Module:
        return self.to("float64")

    def __repr__(self) -> str:
        rows = [f"  ({k}): " + repr(v).replace("\n", "\n  ") for k, v in self.named_children()]
        inside = "\n" + "\n".join(rows) + "\n" if rows else self.extra_repr()
        return f"{type(self).__name__}({inside})"

    def extra_repr(self) -> str:
        return ""
