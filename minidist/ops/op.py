"""From a function on arrays to an operation on Tensors: the two decorators that ops are made of.

An operation is written once, on arrays: it returns its value and, after it, one VJP for each
argument in order (or one Joint for all of them).
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import anomaly, modes, precision
from ..array import DEFAULT, bool_, float64, int64, is_floating, name_of
from ..autograd import VJP, record
from ..device import in_one_place
from ..kernels import arrays as np
from ..kernels.halves import is_half
from ..tensor import Tensor
from ..views import note_view

KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "c": 3}
NUMBERS = {bool: bool_, int: int64, float: DEFAULT}


def unbroadcast(g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Sum a cotangent over the axes along which an array of `shape` was broadcast."""
    if g.shape == shape:
        return g
    added = g.ndim - len(shape)
    stretched = (i + added for i, n in enumerate(shape) if n == 1 and g.shape[i + added] != 1)
    return g.sum((*range(added), *stretched), dtype=g.dtype).reshape(shape)


def differentiable(function: Callable[..., tuple]) -> Callable[..., Tensor]:
    """Make `function(*arrays, **options) -> (value, *vjps)` an operation on Tensors.

    There is one VJP for each positional argument in order (none for the last ones if they are
    never Tensors), or one Joint. Arguments that are no Tensor are passed on as they are.
    """

    name = function.__name__.strip("_")

    @functools.wraps(function)
    def operation(*args: Any, **options: Any) -> Tensor:
        if precision.lowered.get() is not None:
            args = precision.prepared(name, args)
        arrays = [a.data if isinstance(a, Tensor) else a for a in args]
        try:
            if np.gpu() is not None:
                value, *vjps = _there(name, function, args, arrays, options)
            elif any(map(is_half, arrays)):
                value, *vjps = precision.computed(name, function, args, arrays, options)
            else:
                value, *vjps = function(*arrays, **options)
        except TypeError as error:
            raise precision.of_integers(name, arrays, error) from error
        value = np.asarray(value)
        output = Tensor.of(value)
        if is_floating(value):
            record(name, output, args, vjps)
            if modes.anomaly.get() != "off":
                anomaly.check_forward(name, value, arrays, output.node)
            if value.base is not None or value is arrays[0]:
                note_view(output, args, arrays, options, function, operation)
        return output

    return operation


def _there(name: str, function: Any, args: tuple, arrays: list, options: dict) -> tuple:
    """Where a GPU is in use: all in one place, and what is made is made there."""
    arrays[:] = in_one_place(name, args, arrays)
    with np.beside(*arrays):
        return precision.computed(name, function, args, arrays, options)


def elementwise(function: Callable[..., tuple]) -> Callable[..., Tensor]:
    """As differentiable, for an elementwise function whose arguments broadcast.

    Its VJPs may return the broadcast shape: they are summed back to each input's. Dtypes meet
    as in PyTorch: see result_dtype.
    """

    @functools.wraps(function)
    def fitted(*arrays: Any) -> tuple:
        dtype = result_dtype(arrays)
        try:
            value, *vjps = function(*(_meet(a, dtype) for a in arrays))
        except (ValueError, TypeError) as error:
            raise _refused(function.__name__.strip("_"), arrays, error) from None
        value = np.asarray(value)
        if value.dtype == float64 and dtype != float64:  # of integers: 1/2, exp(1)
            value = value.astype(DEFAULT)
        return value, *(_fit(vjp, a) for vjp, a in zip(vjps, arrays))

    return differentiable(fitted)


def _fit(vjp: VJP, x: Any) -> VJP | None:
    if not isinstance(x, np.ndarray):
        return None
    shape, dtype = x.shape, x.dtype  # not x itself: that would keep it alive
    return lambda g: unbroadcast(np.asarray(vjp(g)), shape).astype(dtype, copy=False)


def result_dtype(operands: tuple) -> np.dtype:
    """The dtype in which operands meet, by PyTorch's rule.

    Floats win over integers, integers over bools; among equals, arrays that have dimensions win
    over those that have none, and arrays over numbers.
    """
    first = getattr(operands[0], "dtype", None)
    for a in operands:  # the usual cases, quickly: equal dtypes, and floats with numbers
        if isinstance(a, np.ndarray):
            if a.dtype != first:
                break
        elif first is None or first.kind != "f" or type(a) not in NUMBERS:
            break
    else:
        return first
    ranked = [_rank(a) for a in operands]
    top = max(rank for rank, _ in ranked)
    return np.result_type(*(dtype for rank, dtype in ranked if rank == top))


def _rank(operand: Any) -> tuple[tuple[int, int], np.dtype]:
    if isinstance(operand, np.ndarray):
        return (KINDS[operand.dtype.kind], 2 if operand.ndim else 1), operand.dtype
    number = operand.item() if isinstance(operand, np.generic) else operand
    if type(number) not in NUMBERS:
        raise TypeError(f"an operand is a tensor, an array or a number, not {operand!r}")
    dtype = NUMBERS[type(number)]
    return (KINDS[dtype.kind], 0), dtype


def _meet(operand: Any, dtype: np.dtype) -> Any:
    if isinstance(operand, np.ndarray):
        return operand if operand.dtype == dtype else operand.astype(dtype)
    return operand.item() if isinstance(operand, np.generic) else operand


def want_one_dtype(name: str, *tensors: Any) -> None:
    """Refuse to multiply matrices of two dtypes, as PyTorch does."""
    dtypes = {t.dtype for t in tensors if t is not None}
    if len(dtypes) > 1 and not precision.is_autocast_enabled():
        names = " and ".join(sorted(map(name_of, dtypes)))
        raise RuntimeError(f"{name}: dtypes {names}: convert one with .to()")


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that `dim` (one, several, or None for all) means, none of them negative."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims, n = dim if isinstance(dim, tuple | list) else (dim,), max(ndim, 1)
    for d in dims:
        if not -n <= d < n:
            raise IndexError(f"dim {d} of a tensor of {ndim} dimensions: want {-n} to {n - 1}")
    found = tuple(d % n for d in dims)
    if len(set(found)) < len(found):
        raise RuntimeError(f"dim {dim} names a dimension twice")
    return found if ndim else ()


def _refused(name: str, arrays: tuple, error: Exception) -> RuntimeError:
    try:
        np.broadcast_shapes(*map(np.shape, arrays))
    except ValueError:
        shapes = " and ".join(str(np.shape(a)) for a in arrays)
        return RuntimeError(
            f"{name}: shapes {shapes} do not broadcast: from the right, sizes must be equal or 1"
        )
    return RuntimeError(f"{name}: {error}")
