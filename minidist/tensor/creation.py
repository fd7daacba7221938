"""Making Tensors: PyTorch's names, float32 unless another dtype is asked for."""

from __future__ import annotations

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any

from ..autograd.modes import is_inference_mode_enabled
from ..autograd.tape import INFERENCE
from ..kernels import arrays as xp
from .device import moved
from .dtypes import DEFAULT, DTypeLike, as_array, dtype_of, fitting, float64, int64, want_fit
from .generator import Generator, numbers_of
from .tensor import Tensor


def _sizes(size: tuple) -> tuple[int, ...]:
    return tuple(size[0]) if len(size) == 1 and isinstance(size[0], tuple | list) else size


def _placed(create: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Let it take device=, and its sizes by the name of size too."""
    parameters = str(inspect.signature(create))
    spread, like = "*size" in parameters, parameters.startswith("(input")

    @functools.wraps(create)
    def on_device(*args: Any, device: Any = None, **options: Any) -> Tensor:
        if options.get("dtype", 0) is None:  # as if it were not given
            del options["dtype"]
        if spread and "size" in options:
            args = (options.pop("size"),)
        if like and "input" in options:
            args = (options.pop("input"), *args)
        if like and args and not isinstance(args[0], Tensor):
            name = on_device.__name__
            raise TypeError(f"{name} of {args[0]!r}: want a Tensor, md.tensor() makes one")
        beside = args[0].data if like and args and device is None else None
        with xp.beside(beside):  # made there, not sent there
            made = create(*args, **options)
        if device is None and like:
            device = args[0].device
        if device is not None:
            made.data = moved(made.data, device)
        if is_inference_mode_enabled():
            made.node = INFERENCE
        return made

    return on_device


@_placed
def tensor(data: Any, dtype: DTypeLike = None, requires_grad: bool = False) -> Tensor:
    """A tensor with a copy of data: numbers, nested lists, an array or a tensor."""
    dtype = _told(data) if dtype is None else dtype
    made = Tensor(data, dtype=dtype)
    made.data = made.data.copy()
    return made.requires_grad_(requires_grad)


def _told(data: Any) -> DTypeLike:
    """float64 if a list begins with NumPy's numbers or arrays of it, which are no Python floats."""
    while isinstance(data, list | tuple) and data:
        data = data[0]
    typed = isinstance(data, xp.ndarray | xp.generic | Tensor)  # None would equal float64
    return float64 if typed and data.dtype == float64 else None


@_placed
def as_tensor(data: Any, dtype: DTypeLike = None) -> Tensor:
    """As tensor, but without a copy where none is needed."""
    return data.to(data.dtype if dtype is None else dtype) if isinstance(data, Tensor) else Tensor(
        data, dtype=dtype
    )  # fmt: skip


def from_numpy(array: xp.ndarray) -> Tensor:
    """A tensor that shares the array's memory."""
    if not isinstance(array, xp.ndarray):  # array[0] is a number, not a view
        raise TypeError(f"from_numpy of {type(array).__name__}: want an array, or use tensor()")
    return Tensor(array)


@_placed
def full(
    size: Any, fill_value: Any, dtype: DTypeLike = None, requires_grad: bool = False
) -> Tensor:
    """A tensor of one value, whose dtype it takes unless another is given."""
    value = fill_value.item() if isinstance(fill_value, Tensor | xp.generic) else fill_value
    dtype = as_array(value, None).dtype if dtype is None else dtype_of(dtype)
    value = fitting("full", value, dtype, floats=True)
    shape = _sizes((size,))
    if any(n < 0 for n in shape):
        raise RuntimeError(f"a tensor of shape {shape}: sizes are 0 or more")
    return Tensor(xp.full(shape, value, dtype), requires_grad, dtype)


@_placed
def zeros(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    return full(_sizes(size), 0, dtype, requires_grad)


@_placed
def ones(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    return full(_sizes(size), 1, dtype, requires_grad)


@_placed
def empty(*size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False) -> Tensor:
    """Whatever is in the memory: for what is written to before it is read."""
    return Tensor(xp.empty(_sizes(size), dtype_of(dtype)), requires_grad, dtype)


@_placed
def eye(
    n: int, m: int | None = None, dtype: DTypeLike = DEFAULT, requires_grad: bool = False
) -> Tensor:
    """(n, m), or (n, n): ones on the diagonal, zeros elsewhere."""
    if min(n, n if m is None else m) < 0:
        raise RuntimeError(f"eye of sizes {n} and {m}: want 0 or more")
    return Tensor(xp.eye(n, m, dtype=dtype_of(dtype)), requires_grad, dtype)


@_placed
def tril_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike = "int64") -> Tensor:
    """(2, n): the row and the column of each element on or below a diagonal of a matrix."""
    return _indices("tril_indices", xp.tril_indices, row, col, offset, dtype)


@_placed
def triu_indices(row: int, col: int, offset: int = 0, *, dtype: DTypeLike = "int64") -> Tensor:
    """(2, n): the row and the column of each element on or above a diagonal of a matrix."""
    return _indices("triu_indices", xp.triu_indices, row, col, offset, dtype)


def _indices(name: str, find: Any, row: int, col: int, offset: int, dtype: DTypeLike) -> Tensor:
    if min(row, col) < 0:
        raise RuntimeError(f"{name} of {row} rows and {col} columns: want 0 or more")
    if dtype_of(dtype).kind not in "iu":
        raise NotImplementedError(f"{name} of {dtype_of(dtype).name}: indices are integers")
    return Tensor(xp.stack(find(row, offset, col)), dtype=dtype)


@_placed
def arange(
    start: Any = 0, end: Any = None, step: Any = 1, dtype: DTypeLike = None,
    requires_grad: bool = False,
) -> Tensor:  # fmt: skip
    """arange(end), arange(start, end) or arange(start, end, step)."""
    start, end = (0, start) if end is None else (start, end)
    start, end, step = (a.item() if isinstance(a, Tensor) else a for a in (start, end, step))
    if not step or (end - start) * step < 0 or not math.isfinite(end - start):
        raise RuntimeError(f"arange from {start} to {end} by {step}: it never arrives")
    whole = isinstance(start + end + step, int)
    dtype = (int64 if whole else DEFAULT) if dtype is None else _numeric("arange", dtype)
    # As in PyTorch, start and step are first rounded to integers (and for int64 also end).
    by, begin = (int(step), int(start)) if dtype.kind in "iu" else (step, start)
    if not by and dtype == int64:
        raise ValueError(f"arange: a step of {step} is 0 in int64")
    count = -((int(end) - begin) // -by) if dtype == int64 else math.ceil((end - start) / step)
    return Tensor(xp.arange(max(count, 0)) * by + begin, requires_grad, dtype)


@_placed
def linspace(
    start: Any, end: Any, steps: int, dtype: DTypeLike = DEFAULT, requires_grad: bool = False
) -> Tensor:
    """`steps` equally spaced numbers from start to end, both included; integers round to 0."""
    if not isinstance(steps, int | xp.integer):
        raise TypeError(f"linspace of {steps!r} steps: want a whole number")
    if steps < 0:
        raise RuntimeError(f"linspace of {steps} steps: want 0 or more")
    dtype = _numeric("linspace", DEFAULT if dtype is None else dtype)
    low, high = (_end(a, dtype) for a in (start, end))
    i, step = xp.arange(steps), (high - low) / max(steps - 1, 1)
    array = xp.where(i < steps // 2, low + i * step, high - (steps - 1 - i) * step)
    return Tensor(array if steps != 1 else xp.full(1, low), requires_grad, dtype)


def _end(number: Any, dtype: xp.dtype) -> Any:
    if getattr(number, "ndim", 0):
        raise RuntimeError(
            f"linspace: an end of shape {number.shape}: want a number, or a 0-d tensor"
        )
    number = number.item() if isinstance(number, Tensor | xp.generic) else number
    number = fitting("linspace", number, dtype, floats=True)
    return int(number) if dtype.kind in "iu" else number


def _numeric(name: str, dtype: DTypeLike) -> xp.dtype:
    if dtype_of(dtype).kind == "b":
        raise NotImplementedError(f"{name}: dtype bool: want an integer or floating-point dtype")
    return dtype_of(dtype)


def _drawn(array: xp.ndarray, name: str, dtype: DTypeLike, requires_grad: bool) -> Tensor:
    if dtype_of(dtype).kind in "biu":
        raise NotImplementedError(f"{name} of {dtype_of(dtype).name}: use randint")
    return Tensor(array, requires_grad, dtype)


@_placed
def randn(
    *size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Standard normal numbers, from the default stream or a generator."""
    numbers = numbers_of(generator).standard_normal(_sizes(size))
    return _drawn(numbers, "randn", dtype, requires_grad)


@_placed
def rand(
    *size: Any, dtype: DTypeLike = DEFAULT, requires_grad: bool = False,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Uniform numbers in [0, 1), from the default stream or a generator."""
    return _drawn(numbers_of(generator).random(_sizes(size)), "rand", dtype, requires_grad)


@_placed
def randint(
    low: int = 0, high: Any = None, size: Any = None, dtype: DTypeLike = "int64", *,
    generator: Generator | None = None,
) -> Tensor:  # fmt: skip
    """Integers from low to high - 1; randint(high, size) draws from 0."""
    low, high, size = (0, low, high) if size is None else (low, high, size)
    low, high = (0, low) if high is None else (low, high)
    if low >= high:
        raise RuntimeError(f"randint from {low} to {high}: the second must be larger")
    _want_range("randint", low, high - 1, dtype)
    return Tensor(numbers_of(generator).integers(low, high, _sizes((size,))), dtype=dtype)


def _want_range(name: str, low: int, high: int, dtype: DTypeLike) -> None:
    """Refuse a range of integers that the dtype cannot hold (here unsigned ones do not wrap)."""
    dtype = dtype_of(dtype)
    ends = xp.array([low, high], float) if dtype.kind == "u" else xp.array([low, high])
    want_fit(f"{name} from {low} to {high}", ends, dtype)


@_placed
def randperm(n: int, dtype: DTypeLike = "int64", *, generator: Generator | None = None) -> Tensor:
    """0 to n - 1 in random order."""
    _want_range("randperm", 0, max(n - 1, 0), dtype)
    return Tensor(numbers_of(generator).permutation(n), dtype=dtype)


# Tensors with the shape of another tensor, and with its dtype unless another is given


@_placed
def full_like(
    input: Tensor, fill_value: Any, dtype: DTypeLike = None, requires_grad: bool = False
) -> Tensor:
    return full(input.shape, fill_value, input.dtype if dtype is None else dtype, requires_grad)


def _like(create: Any) -> Any:
    @_placed
    def of_shape(
        input: Tensor, dtype: DTypeLike = None, requires_grad: bool = False, **options: Any
    ) -> Tensor:
        dtype = input.dtype if dtype is None else dtype
        return create(input.shape, dtype=dtype, requires_grad=requires_grad, **options)

    of_shape.__name__ = f"{create.__name__}_like"
    return of_shape


zeros_like, ones_like, empty_like = _like(zeros), _like(ones), _like(empty)
rand_like, randn_like = _like(rand), _like(randn)
