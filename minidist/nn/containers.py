"""Modules that hold modules."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

from .module import Module


class ModuleDict(Module):
    """Modules by name."""

    def __init__(self, modules: Any = ()):
        self.update(modules)

    def update(self, modules: Any) -> None:
        for name, module in dict(modules).items():
            self[name] = module

    def _held(self) -> dict[str, Module]:
        return {k: v for k, v in vars(self).items() if isinstance(v, Module)}

    def __setitem__(self, name: str, module: Module) -> None:
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module")
        if not name or "." in name or (hasattr(self, name) and name not in self._held()):
            raise KeyError(f"a module cannot be named '{name}': choose a plain, unused name")
        setattr(self, name, module)

    def __getitem__(self, name: str) -> Module:
        return self._held()[name]

    def __delitem__(self, name: str) -> None:
        delattr(self, name)

    def pop(self, name: str) -> Module:
        module = self[name]
        del self[name]
        return module

    def __len__(self) -> int:
        return len(self._held())

    def __iter__(self) -> Iterator[str]:
        return iter(self._held())

    def __contains__(self, name: str) -> bool:
        return name in self._held()

    def keys(self) -> Iterable[str]:
        return self._held().keys()

    def values(self) -> Iterable[Module]:
        return self._held().values()

    def items(self) -> Iterable[tuple[str, Module]]:
        return self._held().items()


class ModuleList(Module):
    """A list of modules, named 0, 1, 2, …"""

    def __init__(self, modules: Iterable[Module] = ()):
        self.extend(modules)

    def extend(self, modules: Iterable[Module]) -> ModuleList:
        for module in modules:
            self.append(module)
        return self

    def append(self, module: Module) -> ModuleList:
        if not isinstance(module, Module):
            raise TypeError(f"{type(module).__name__} is not a Module")
        setattr(self, str(len(self)), module)
        return self

    def _names(self) -> list[str]:
        return [k for k, v in vars(self).items() if isinstance(v, Module)]

    def __len__(self) -> int:
        return len(self._names())

    def __iter__(self) -> Iterator[Module]:
        return iter([vars(self)[name] for name in self._names()])

    def __getitem__(self, index: Any) -> Any:
        if not isinstance(index, slice):
            return vars(self)[self._names()[index]]
        part = type(self)()
        for name in self._names()[index]:
            setattr(part, name, vars(self)[name])
        return part if isinstance(self, Sequential) else part.__class__(part)

    def __setitem__(self, index: int, module: Module) -> None:
        setattr(self, self._names()[index], module)

    def __delitem__(self, index: Any) -> None:
        rest = list(self)
        del rest[index]
        self._renew(rest)

    def insert(self, index: int, module: Module) -> None:
        self._renew([*self[:index], module, *self[index:]])

    def pop(self, index: int) -> Module:
        module = self[index]
        del self[index]
        return module

    def _renew(self, modules: Iterable[Module]) -> None:
        """Others in place of those that are here, numbered anew."""
        for name in self._names():
            delattr(self, name)
        self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> Any:
        return type(self)([*self, *other])

    def __iadd__(self, other: Iterable[Module]) -> Any:
        return self.extend(other)

    def _told(self) -> Iterator[tuple[str, str]]:
        """Equal ones in a row are told once."""
        for text, group in itertools.groupby(super()._told(), lambda told: told[1]):
            names = [name for name, _ in group]
            many = len(names) > 1
            yield (
                (f"{names[0]}-{names[-1]}", f"{len(names)} x {text}") if many else (names[0], text)
            )


class Sequential(ModuleList):
    """Modules applied one after the other, named 0, 1, 2, … or by an OrderedDict's keys."""

    def __init__(self, *modules: Any):
        if len(modules) == 1 and isinstance(modules[0], dict):
            for name, module in modules[0].items():
                setattr(self, name, module)
        else:
            self.extend(modules)

    def __add__(self, other: Iterable[Module]) -> Any:
        return type(self)(*self, *other)

    def _told(self) -> Iterator[tuple[str, str]]:
        return Module._told(self)

    def forward(self, input: Any) -> Any:
        for module in self:
            input = module(input)
        return input
