"""NumPy's names for arrays of NumPy and of CuPy alike: `from . import arrays as xp`.

On a CPU they are NumPy's own functions, at no cost. When a GPU is first used, `enable` replaces
them by functions that look at their arguments: they call CuPy's function if an argument is an array
of CuPy, otherwise NumPy's. Functions that create an array, such as zeros, create it on the device
that the block `beside` names. So a kernel or an operation is written once for both.

The first product of matrices also decides how many threads BLAS uses (blas.py).
"""

# ruff: noqa: F403, SIM905
from __future__ import annotations

import builtins
import math
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from itertools import accumulate, pairwise
from types import SimpleNamespace
from typing import Any

import numpy
from numpy import *

from . import blas

MAKERS = frozenset(
    "arange array asarray ascontiguousarray empty eye full identity indices linspace ones tri "
    "zeros".split()
)
ABOUT = frozenset(  # of shapes and dtypes, never of numbers: NumPy's own, whatever they are given
    "broadcast_shapes can_cast dtype errstate finfo iinfo isscalar issubdtype min_scalar_type "
    "ndindex promote_types".split()
)
# The module cupy, once it is in use: one for the process, as CuPy has one context for it.
_use = SimpleNamespace(gpu=None)
_beside: ContextVar[builtins.bool] = ContextVar(
    "beside", default=False
)  # whether makers make GPU arrays


def enable(cupy: Any) -> None:
    """From now on the names serve the arrays of `cupy` (the module) too."""
    if _use.gpu is cupy:
        return
    _use.gpu = cupy
    blas.settle()  # the names of products are replaced
    # The names of this module are replaced, once. If each call looked at its arguments without a
    # GPU too, a training step of gpt-tiny (16 x 64 tokens: 2,400 calls, 1.5 µs each) would take
    # 3 % longer on a CPU (measured on an AMD EPYC core).
    for name in numpy.__all__:
        host = getattr(numpy, name)
        if callable(host) and not isinstance(host, type) and name not in ABOUT:
            globals()[name] = _Either(name, host, getattr(cupy, name, None))
    globals()["ndarray"] = numpy.ndarray | cupy.ndarray  # for isinstance


def disable() -> None:
    """NumPy's names alone again: for tests."""
    _use.gpu = None
    globals().update({name: getattr(numpy, name) for name in numpy.__all__})


PRODUCTS = ("matmul", "dot", "einsum", "tensordot")  # the functions that call BLAS


def _first(name: str) -> Callable[..., Any]:
    """NumPy's function; the first call sets the threads of BLAS and restores the original name."""

    def product(*args: Any, **options: Any) -> Any:
        blas.settle()
        if _use.gpu is None:
            globals()[name] = getattr(numpy, name)
        return getattr(numpy, name)(*args, **options)

    return product


globals().update({name: _first(name) for name in PRODUCTS})


class _Either:
    """A function of NumPy's or of CuPy's, by where its arguments are; so are a ufunc's methods."""

    def __init__(self, name: str, host: Any, gpu: Any):
        self.name, self.host, self.gpu, self.makes = name, host, gpu, name in MAKERS

    def __call__(self, *args: Any, **options: Any) -> Any:
        there = _any_on_gpu(args) or _any_on_gpu(options.values())
        if self.makes and not there and not isinstance(args[0], numpy.ndarray):
            there = _beside.get()
        return self._choose(there)(*args, **options)

    def _choose(self, there: builtins.bool) -> Callable[..., Any]:
        if there and self.gpu is None:
            raise NotImplementedError(f"CuPy has no function {self.name}")
        return self.gpu if there else self.host

    def __getattr__(self, name: str) -> Any:
        host = getattr(self.host, name)
        return _Either(name, host, getattr(self.gpu, name, None)) if callable(host) else host


def _any_on_gpu(values: Any) -> builtins.bool:
    return builtins.any(
        isinstance(v, _use.gpu.ndarray)
        or (
            isinstance(v, list | tuple) and builtins.any(isinstance(x, _use.gpu.ndarray) for x in v)
        )
        for v in values
    )


def gpu() -> Any:
    """The module cupy, or None while none is in use."""
    return _use.gpu


def on_gpu(array: Any) -> builtins.bool:
    """Whether it is a CuPy array."""
    return _use.gpu is not None and isinstance(array, _use.gpu.ndarray)


def at_home_of(x: Any, array: Any) -> Any:
    """The array where x is: a copy if x is on the GPU and it is not."""
    return _use.gpu.asarray(array) if on_gpu(x) and not on_gpu(array) else array


def index_of(x: Any, index: tuple) -> tuple:
    """An index of x, the arrays in it where x is."""
    if not on_gpu(x):
        return index
    return tuple(at_home_of(x, p) if isinstance(p, numpy.ndarray) else p for p in index)


def highest(x: Any, axis: Any = None, keepdims: builtins.bool = False) -> Any:
    """x.max, which is -inf where there is nothing (CuPy's has no `initial`)."""
    if not on_gpu(x):
        return x.max(axis, keepdims=keepdims, initial=-numpy.inf)
    if x.size:
        return x.max(axis, keepdims=keepdims)
    empty = x.sum(axis, keepdims=keepdims)
    return _use.gpu.full_like(empty, -numpy.inf)


def sign_of(x: Any) -> Any:
    """-1, 0 or 1; 0 for NaN, as in PyTorch (NumPy's sign gives NaN)."""
    if x.dtype == builtins.bool:
        return x.copy()  # no view: a write into the sign is none into x
    return subtract(x > 0, x < 0, dtype=x.dtype)  # noqa: F405


def zeroed(g: Any, gone: Any) -> Any:
    """g with zeros where `gone` (bools, which are overwritten) is true; twice as fast as where().

    It masks the bits, because a product of 0 and inf would be NaN.
    """
    bits, stays = f"i{g.dtype.itemsize}", gone.view("int8")
    stays -= 1  # all bits are 1 where g stays
    out = empty_like(g)  # noqa: F405
    bitwise_and(stays, g.view(bits), out=out.view(bits))  # noqa: F405
    return out


def outside(index: Any, count: int) -> builtins.bool:
    """Whether a number is not 0 to count - 1. False on a GPU: to know would be to wait for it."""
    if on_gpu(index) or not index.size:
        return False
    return not (index.min() >= 0 and index.max() < count)


LINE = 64  # bytes of a cache line


def aligned(count: int, dtype: Any) -> Any:
    """An array of `count` zeros that starts on a cache line; NumPy's own start on 16 bytes."""
    size = numpy.dtype(dtype).itemsize * count
    memory = numpy.zeros(size + LINE, numpy.uint8)
    start = -memory.ctypes.data % LINE
    # by way of a memoryview, so that the array counts as the owner of its own bytes alone
    view = memoryview(memory[start : start + size])  # type: ignore[arg-type]
    return numpy.frombuffer(view, dtype, count)


def cut(flat: Any, shapes: Iterable[tuple[int, ...]]) -> list[Any]:
    """The flat array as views of these shapes, one after the other."""
    edges = pairwise(accumulate((math.prod(shape) for shape in shapes), initial=0))
    return [flat[i:j].reshape(shape) for shape, (i, j) in zip(shapes, edges)]


class Buffer:
    """Memory for arrays of the dtype of `like`, one after the other; it grows as they need it."""

    def __init__(self, like: Any):
        self.whole = empty_like(like, order="C", shape=0)  # noqa: F405

    def __call__(self, *shape: int) -> Any:
        n = math.prod(shape)
        if self.whole.size < n:
            self.whole = empty_like(self.whole, shape=n)  # noqa: F405
        return self.whole[:n].reshape(shape)


class beside:
    """Inside its block, new arrays are made on the GPU if one of the values is there."""

    __slots__ = ("token", "values")

    def __init__(self, *values: Any):
        self.values, self.token = values, None  # type: Any, Any

    def __enter__(self) -> None:
        if _use.gpu is not None:
            self.token = _beside.set(_any_on_gpu(self.values))

    def __exit__(self, *error: object) -> None:
        if self.token is not None:
            _beside.reset(self.token)
