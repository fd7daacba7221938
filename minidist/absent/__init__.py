"""Names that only PyTorch has: the AttributeError says so, and names a substitute.

How it works:
1. A module calls `explain(__name__)`, which gives it a `__getattr__`. Python calls this for names
   that the module does not have, and for no others: all other names are found as fast as before.
2. A `__getattr__` in class Tensor would slow down every attribute of every tensor, because Python
   then skips its fast path. So Tensor has a base class with one descriptor for each absent name,
   which raises when it is read. A method of Tensor hides the descriptor of the same name.
3. The names are in names.py, the substitutes in substitutes.py. A name that minidist has got since
   may stay there, because it is never looked up.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from .names import NAMES

TENSOR = "minidist.Tensor"
ORIGIN = {
    "minidist": "torch", TENSOR: "torch.Tensor", "minidist.nn": "torch.nn",
    "minidist.nn.functional": "torch.nn.functional", "minidist.nn.init": "torch.nn.init",
    "minidist.nn.utils": "torch.nn.utils", "minidist.optim": "torch.optim",
    "minidist.optim.lr_scheduler": "torch.optim.lr_scheduler",
    "minidist.autograd": "torch.autograd", "minidist.tensor.cuda": "torch.cuda",
}  # fmt: skip


def explain(module: str, load: Callable[[str], Any] = lambda name: None) -> None:
    """Let the AttributeError for a missing name of the module say why, and what to use instead.

    `load` may return a part of the module that is loaded when it is first used, or None.
    (Written as `def __getattr__` in the module, it would hide wrong names from mypy.)
    """

    def __getattr__(name: str) -> Any:
        if (part := load(name)) is not None:
            return part
        why = "" if name.startswith("_") else _why(module, name)
        raise AttributeError(f"module '{module}' has no attribute '{name}'{why}", name=name)

    sys.modules[module].__getattr__ = __getattr__  # type: ignore[method-assign]


class AbsentName:
    """A descriptor for a method that only PyTorch has; hasattr() does not find it."""

    def __init__(self, name: str):
        self.name = name

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        whose = "type object 'Tensor'" if instance is None else "'Tensor' object"
        what = f"{whose} has no attribute '{self.name}'"
        raise AttributeError(f"{what}{_why(TENSOR, self.name)}", name=self.name)


class AbsentNames:
    """The base class of Tensor: every name of PyTorch's Tensor that ours does not have."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        absent = vars(AbsentNames)
        return [n for n in super().__dir__() if n not in absent or hasattr(type(self), n)]


for _name in NAMES[TENSOR].split():
    setattr(AbsentNames, _name, AbsentName(_name))


# The end of the message


def _why(place: str, name: str) -> str:
    if name in NAMES.get(place, "").split():
        substitute = _substitute(place, name)
        end = f"use {substitute}" if substitute else "there is nothing in its place"
        return f": PyTorch has {ORIGIN[place]}.{name}, minidist does not: {end}"
    if name in _submodules(place):
        return f": it is a module of its own: import {place}.{name}"
    near = _near(place, name)
    return f": did you mean '{near}'?" if near else ""


def _substitute(place: str, name: str) -> str | None:
    """The substitute from the table, or the same name elsewhere, or the name without its "_"."""
    from .substitutes import substitutes  # read when a name is missed for the first time

    general = "minidist" if place in (TENSOR, "minidist.nn.functional") else place
    found = substitutes(place).get(name) or substitutes(general).get(name)
    return found or _elsewhere(place, name) or _out_of_place(place, name)


def _elsewhere(place: str, name: str) -> str | None:
    spaces = {"x": _get(TENSOR), "md": _get("minidist"), "F": _get("minidist.nn.functional")}
    homes = {TENSOR: "x", "minidist": "md", "minidist.nn.functional": "F"}
    for short, space in spaces.items():
        if short != homes.get(place) and name in vars(space):
            return f"{short}.{name}"
    return None


def _out_of_place(place: str, name: str) -> str | None:
    """x.copy_(x.acosh()) for acosh_."""
    base = name.removesuffix("_")
    if base == name or base not in vars(_get(TENSOR)):
        return None
    return f"x.copy_(x.{base}(…))"


def _get(place: str) -> Any:
    """A module, or the class Tensor; nothing is imported for it."""
    if place == TENSOR:
        return sys.modules["minidist.tensor.tensor"].Tensor
    return sys.modules.get(place, AbsentNames)


def _submodules(place: str) -> set[str]:
    import pkgutil

    return {m.name for m in pkgutil.iter_modules(getattr(_get(place), "__path__", []))}


def _near(place: str, name: str) -> str | None:
    import difflib

    names = [n for n in dir(_get(place)) if n[0] != "_"]
    return next(iter(difflib.get_close_matches(name, names, 1, 0.7)), None)
