"""Which version of a kernel runs: the formula, the loop or the tile program.

- "naive": the formula, whole NumPy arrays an operation at a time. It is the reference.
- "numba": the loop, on the CPU's arrays of float32 and float64 (loops.py).
- "triton": the tile program, on the GPU's arrays.

By default the array's home and dtype decide; what has no such version runs the formula.
MINIDIST_KERNELS=naive|numba|triton, or `using(...)`, asks for one by name. Triton on the CPU's
arrays then needs its interpreter (TRITON_INTERPRET=1); Numba on the GPU's runs the formula.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from . import loops
from .arrays import gpu, on_gpu

VERSIONS = ("naive", "numba", "triton")
_forced: ContextVar[str | None] = ContextVar("forced", default=None)


class Kernel:
    """A function of arrays in several versions; calling it calls one of them.

    Every version takes the same arguments and returns the same values, so that the backward of one
    version may follow the forward of another.
    """

    def __init__(self, formula: Callable[..., Any]):
        functools.update_wrapper(self, formula)
        self.versions = {"naive": formula}
        self.dtypes: tuple[Any, ...] | None = None

    @property
    def formula(self) -> Callable[..., Any]:
        """The reference, whatever is asked for."""
        return self.versions["naive"]

    def version(
        self, name: str, dtypes: tuple[Any, ...] | None = loops.FLOATS
    ) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
        """Register the decorated function, of the same signature, as that version.

        The loop runs where the first argument has one of `dtypes`; with None wherever it is called.
        """
        assert name in VERSIONS, f"{name!r}: want one of {VERSIONS}"

        def register(function: Callable[..., Any]) -> Callable[..., Any]:
            self.versions[name] = function
            if name == "numba":
                self.dtypes = dtypes
            return function

        return register

    def plain(self, array: Any) -> Callable[..., Any]:
        """The version for what Triton's does not serve, where the array lives."""
        return self.formula if on_gpu(array) else self._on_cpu((array,))

    def _on_cpu(self, args: tuple) -> Callable[..., Any]:
        loop = self.versions.get("numba")
        if loop is None or (self.dtypes and getattr(args[0], "dtype", None) not in self.dtypes):
            return self.formula
        return loop if self.dtypes is None or loops.available() else self.formula

    def __call__(self, *args: Any, **options: Any) -> Any:
        name = forced()
        if name == "numba":
            loops.require()
        if name is None or name == "numba":
            if gpu() is None or not any(map(on_gpu, args)):
                return self._on_cpu(args)(*args, **options)
            name = "naive" if name else "triton"
        return self.versions.get(name, self.formula)(*args, **options)


formula = Kernel


def forced() -> str | None:
    """The version that `using` or MINIDIST_KERNELS asks for, if any."""
    return _forced.get() or _environment()


def require() -> str | None:
    """The version asked for, with the environment read anew: a command calls it when it starts.

    RuntimeError if that version cannot run for want of a package.
    """
    _environment.cache_clear()
    name = forced()
    if name == "numba":
        loops.require()
    return name


@functools.cache  # os.environ takes 0.8 µs a look
def _environment() -> str | None:
    name = os.environ.get("MINIDIST_KERNELS") or None
    if name is not None and name not in VERSIONS:
        raise ValueError(f"MINIDIST_KERNELS={name}: want one of {', '.join(VERSIONS)}")
    return name


@contextlib.contextmanager
def using(name: str) -> Iterator[None]:
    """Inside, kernels run the named version."""
    if name not in VERSIONS:
        raise ValueError(f"no kernels {name!r}: want one of {', '.join(VERSIONS)}")
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)
