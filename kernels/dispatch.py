"""Which version of a kernel runs: NumPy's in tiles, Triton's, or the naive one.

By default the arrays decide: CuPy arrays run Triton's version, NumPy arrays run NumPy's.
MINIDIST_KERNELS=numpy|triton|naive (or `using(...)`) forces one. A kernel that lacks the version
asked for runs NumPy's. On CuPy arrays it runs the naive version instead, whole arrays at a time:
tiles for a CPU's cache would only be more launches.
"""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from .arrays import gpu, on_gpu

VERSIONS = ("numpy", "triton", "naive")
_forced: ContextVar[str | None] = ContextVar("forced", default=None)


class Dispatched:
    """A kernel in several versions; calling it calls one of them."""

    def __init__(self, numpy: Callable[..., Any]):
        functools.update_wrapper(self, numpy)
        self.numpy, self.versions = numpy, {"numpy": numpy}

    def version(self, name: str) -> Callable[[Callable], Callable]:
        """Registers the decorated function, of the same signature, as that version."""
        assert name in VERSIONS, f"{name!r}: want one of {VERSIONS}"

        def register(function: Callable) -> Callable:
            self.versions[name] = function
            return function

        return register

    def plain(self, array: Any) -> Callable[..., Any]:
        """The version for what Triton's does not serve, where the array lives."""
        return self.versions["naive" if on_gpu(array) and "naive" in self.versions else "numpy"]

    def __call__(self, *args: Any, **options: Any) -> Any:
        if gpu() is None and _forced.get() is None and "MINIDIST_KERNELS" not in os.environ:
            return self.numpy(*args, **options)
        there = any(map(on_gpu, args))
        name = forced() or ("triton" if there else "numpy")
        if there and (name == "numpy" or name not in self.versions):
            name = "naive"
        return self.versions.get(name, self.versions["numpy"])(*args, **options)


dispatched = Dispatched


def forced() -> str | None:
    """The version that `using` or MINIDIST_KERNELS asks for, if any."""
    name = _forced.get() or os.environ.get("MINIDIST_KERNELS") or None
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
