"""Modules that hold modules, or parameters."""

from __future__ import annotations

import itertools
import operator
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..tensor.tensor import Tensor
from .module import Module, Parameter


def _want_name(module: Module, name: str, held: Iterable[str]) -> None:
    """Refuse a name that would hide an attribute, or that a state_dict could not spell."""
    kind = type(module).__name__
    if not isinstance(name, str):
        raise TypeError(f"{kind}: name {name!r}: want a str")
    if not name or "." in name or (hasattr(module, name) and name not in held):
        raise KeyError(f"{kind}: a value cannot be named '{name}': choose a plain, unused name")


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
        _want_name(self, name, self._held())
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


def _as_parameter(value: Any) -> Any:
    """A Tensor as a Parameter that shares its memory; other values stay as they are."""
    plain = isinstance(value, Tensor) and not isinstance(value, Parameter)
    return Parameter(value) if plain else value


class _Parameters(Module):
    """The base of ParameterList and ParameterDict: named values, and how they are printed."""

    def _named_values(self) -> Iterable[tuple[str, Any]]:
        raise NotImplementedError

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(f"a {type(self).__name__} cannot be called: use what it holds")

    def _told(self) -> Iterator[tuple[str, str]]:
        for name, value in self._named_values():
            if isinstance(value, Tensor):
                size = "x".join(map(str, value.shape))
                where = f" ({value.device})" * value.is_cuda
                yield name, f"Parameter containing: [{value.dtype.name} of size {size}{where}]"
            else:
                yield name, f"Object of type: {type(value).__name__}"


class ParameterList(_Parameters):
    """A list of parameters, named 0, 1, 2, … Tensors become Parameters; other values are kept."""

    def __init__(self, values: Iterable[Any] | None = None):
        self._size = 0
        self.extend(() if values is None else values)

    def extend(self, values: Iterable[Any]) -> ParameterList:
        if isinstance(values, Tensor) or not isinstance(values, Iterable):
            kind = type(values).__name__
            raise TypeError(f"ParameterList.extend takes an iterable of parameters, not a {kind}")
        for value in values:
            self.append(value)
        return self

    __iadd__ = extend

    def append(self, value: Any) -> ParameterList:
        setattr(self, str(self._size), _as_parameter(value))
        self._size += 1
        return self

    def _name(self, index: int) -> str:
        if not -self._size <= operator.index(index) < self._size:
            raise IndexError(f"index {index} of a ParameterList of {self._size}")
        return str(index % self._size)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return type(self)(self[i] for i in range(*index.indices(self._size)))
        return getattr(self, self._name(index))

    def __setitem__(self, index: int, value: Any) -> None:
        setattr(self, self._name(index), _as_parameter(value))

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(self._size))

    def _named_values(self) -> Iterable[tuple[str, Any]]:
        return ((str(i), value) for i, value in enumerate(self))


class ParameterDict(_Parameters):
    """Parameters by name. Tensors become Parameters; other values are kept.

    The entries of a plain dict are sorted by name, as in PyTorch.
    """

    def __init__(self, parameters: Any = None):
        self._keys: dict[str, None] = {}
        self.update(() if parameters is None else parameters)

    def update(self, parameters: Any) -> None:
        """Add the entries of a mapping, or pairs (name, value)."""
        if not isinstance(parameters, Iterable):
            kind = type(parameters).__name__
            raise TypeError(f"ParameterDict.update takes a mapping or pairs, not a {kind}")
        if isinstance(parameters, OrderedDict | ParameterDict):
            parameters = parameters.items()
        elif isinstance(parameters, Mapping):
            parameters = sorted(parameters.items(), key=operator.itemgetter(0))
        for name, value in parameters:
            self[name] = value

    def __getitem__(self, name: str) -> Any:
        if name not in self._keys:
            raise KeyError(f"{name!r} is not in the ParameterDict: it has {list(self._keys)}")
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        _want_name(self, name, self._keys)
        setattr(self, name, _as_parameter(value))
        self._keys[name] = None

    def __delitem__(self, name: str) -> None:
        del self._keys[name]
        delattr(self, name)

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[str]:
        return iter(self._keys)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._keys)

    def __contains__(self, name: str) -> bool:
        return name in self._keys

    def __or__(self, other: Any) -> ParameterDict:
        both = self.copy()
        both.update(other)
        return both

    def __ior__(self, other: Any) -> ParameterDict:
        self.update(other)
        return self

    def copy(self) -> ParameterDict:
        """A new dict with the same parameters."""
        return ParameterDict(self)

    def get(self, name: str, default: Any = None) -> Any:
        return getattr(self, name) if name in self._keys else default

    def setdefault(self, name: str, default: Any = None) -> Any:
        if name not in self:
            self[name] = default
        return self[name]

    def pop(self, name: str) -> Any:
        value = self[name]
        del self[name]
        return value

    def popitem(self) -> tuple[str, Any]:
        """Remove and return the last name and its value."""
        name = next(reversed(self._keys))
        return name, self.pop(name)

    def clear(self) -> None:
        for name in list(self._keys):
            del self[name]

    def fromkeys(self, names: Iterable[str], default: Any = None) -> ParameterDict:
        """A new dict with these names, all with the same value."""
        return ParameterDict((name, default) for name in names)

    def keys(self) -> Iterable[str]:
        return self._keys.keys()

    def values(self) -> Iterable[Any]:
        return (self[name] for name in self._keys)

    def items(self) -> Iterable[tuple[str, Any]]:
        return ((name, self[name]) for name in self._keys)

    _named_values = items
