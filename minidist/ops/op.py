"""From a function on arrays to an operation on Tensors: the two decorators that ops are made of.

How it works (`x + y`, say):
1. An operation is written once, on arrays: it returns its value and, after it, one VJP for each
   argument in order, or one Joint for all. `@differentiable` makes it take and give Tensors;
   `@elementwise` lets its arguments broadcast and their dtypes meet, too.
2. tensor/methods.py binds it: `Tensor.__add__ = ops.add`. A call casts the arguments if autocast
   is on, takes their arrays, computes, and wraps the value.
3. `record` (autograd/tape.py) notes the VJPs on the tape, if an argument requires grad.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable
from typing import Any

from ..amp.autocast import Precision, declared, in_float32, is_autocast_enabled
from ..autograd import anomaly
from ..autograd.modes import current
from ..autograd.tape import VJP, record
from ..kernels import arrays as xp
from ..kernels.half_precision import is_half
from ..tensor.device import in_one_place
from ..tensor.dtypes import (
    BFLOAT16,
    DEFAULT,
    DTYPES,
    bool_,
    float16,
    float32,
    float64,
    int8,
    int64,
    is_floating,
    want_fit,
)  # fmt: skip
from ..tensor.teaching import want_other
from ..tensor.tensor import Tensor
from ..tensor.views import note_view

KINDS = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}  # "V" is bfloat16
NUMBERS = {bool: bool_, int: int64, float: DEFAULT}
RANGES: dict[Any, Any] = {
    d: (int(xp.iinfo(d).min), int(xp.iinfo(d).max)) for d in DTYPES.values() if d.kind in "iu"
}
EVERY: Any = -math.inf, math.inf


def unbroadcast(g: xp.ndarray, shape: tuple[int, ...]) -> xp.ndarray:
    """Sum a cotangent over the axes along which an array of `shape` was broadcast."""
    if g.shape == shape:
        return g
    added = g.ndim - len(shape)
    stretched = (i + added for i, n in enumerate(shape) if n == 1 and g.shape[i + added] != 1)
    return g.sum((*range(added), *stretched), dtype=g.dtype).reshape(shape)


def differentiable(bare: Callable[..., tuple] | None = None, /, **precision: Any) -> Callable:
    """Make `function(*arrays, **options) -> (value, *vjps)` an operation on Tensors.

    There is one VJP for each positional argument in order (none for the last ones if they are
    never Tensors), or one Joint. Arguments that are no Tensor are passed on as they are.

    `precision` are the fields of amp.autocast.Precision; `autocast`, the policy, must be given:
    `@differentiable(autocast="fp32")`.
    """
    if bare is not None:
        declared(bare)  # raises: it has no policy
    return lambda function: _operation(function, declared(function, **precision))


def _operation(function: Callable[..., tuple], precision: Precision) -> Callable[..., Tensor]:
    name = function.__name__.strip("_")

    @functools.wraps(function)
    def operation(*args: Any, **options: Any) -> Tensor:
        modes = current()
        if modes.autocast is not None:
            args = precision.cast_inputs(args)
        arrays = [a.data if isinstance(a, Tensor) else a for a in args]
        if not args or not isinstance(args[0], Tensor):
            _want_a_tensor(name, args, options)
        try:
            if xp.gpu() is not None:
                value, *vjps = _beside_gpu(name, function, precision, args, arrays, options)
            elif any(map(is_half, arrays)):
                value, *vjps = in_float32(function, precision, arrays, options)
            else:
                value, *vjps = function(*arrays, **options)
        except TypeError as error:
            raise _of_integers(name, arrays, error) from error
        except AttributeError as error:
            want_other(name, error, args, options)
            raise
        value = xp.asarray(value)
        output = Tensor.of(value)
        if is_floating(value):
            record(name, output, args, vjps)
            if modes.anomaly != "off":
                anomaly.check_forward(name, value, arrays, output.node)
            if value.base is not None or value is arrays[0]:
                note_view(output, args, arrays, options, function, operation)
        return output

    operation.precision, operation.teaches = precision, True  # type: ignore[attr-defined]
    return operation


def _want_a_tensor(name: str, args: tuple, options: dict) -> None:
    if args and not any(isinstance(a, Tensor | xp.ndarray) for a in (*args, *options.values())):
        raise TypeError(f"{name} of {args[0]!r}: want a tensor: md.tensor({args[0]!r}) makes one")


def _beside_gpu(
    name: str, function: Any, precision: Precision, args: tuple, arrays: list, options: dict
) -> tuple:
    """Where a GPU is in use: all arrays must be in one place, and new ones are made there."""
    arrays[:] = in_one_place(name, args, arrays)
    with xp.beside(*arrays):
        return in_float32(function, precision, arrays, options)


def elementwise(
    bare: Callable[..., tuple] | None = None, /, *, numbers: str = "wrap", **precision: Any
) -> Callable:
    """As differentiable, for an elementwise function whose arguments broadcast.

    Its VJPs may return the broadcast shape: they are summed back to each input's. Dtypes meet
    as in PyTorch: see result_dtype. Options are passed on unchanged. `numbers` says what happens
    to Python numbers among the arguments of an integer dtype: "wrap" (300 becomes 44 in uint8),
    "stay" or "error".
    """
    if bare is not None:
        declared(bare)  # raises: it has no policy
    return lambda function: _operation(_fitted(function, numbers), declared(function, **precision))


def _fitted(function: Callable[..., tuple], numbers: str) -> Callable[..., tuple]:
    meet = {"wrap": _meet, "stay": _meet_as_it_is, "error": _meet_as_tensor}[numbers]

    @functools.wraps(function)
    def fitted(*arrays: Any, **options: Any) -> tuple:
        dtype = result_dtype(arrays)
        operands = [meet(a, dtype) for a in arrays]
        try:
            value, *vjps = function(*operands, **options)
        except (ValueError, TypeError) as error:
            raise _refused(function.__name__.strip("_"), arrays, error) from None
        value = xp.asarray(value)
        if value.dtype != dtype:
            value = _settled(function.__name__.strip("_"), value, dtype)
        return value, *[_fit(vjp, a) for vjp, a in zip(vjps, arrays)]

    return fitted


def _settled(name: str, value: xp.ndarray, dtype: xp.dtype) -> xp.ndarray:
    """A value of another dtype than its operands': a predicate's, or one that NumPy chose."""
    if value.dtype == float64:  # for operations such as 1/2 and exp(1) of integers
        return value.astype(DEFAULT)
    if dtype == bool_ and value.dtype in (float16, int8):  # round(True), True**True
        raise NotImplementedError(f"{name} of bool: convert with .long() or .float() first")
    return value


def composite(*, autocast: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Declare the policy of a function that is made of other operations.

    PyTorch's table has mse_loss, for example: without this its difference would be in 16 bits.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        precision = declared(function, autocast)

        @functools.wraps(function)
        def cast(*args: Any, **options: Any) -> Any:
            if current().autocast is not None:
                args = precision.cast_inputs(args)
                options = dict(zip(options, precision.cast_inputs(tuple(options.values()))))
            try:
                return function(*args, **options)
            except AttributeError as error:
                want_other(function.__name__, error, args, options)
                raise

        cast.precision, cast.teaches = precision, True  # type: ignore[attr-defined]
        return cast

    return decorate


def _fit(vjp: VJP, x: Any) -> VJP | None:
    if not isinstance(x, xp.ndarray):
        return None
    shape, dtype = x.shape, x.dtype  # not x itself: that would keep it alive
    return lambda g: unbroadcast(xp.asarray(vjp(g)), shape).astype(dtype, copy=False)


def result_dtype(operands: tuple) -> xp.dtype:
    """The dtype in which operands meet, by PyTorch's rule.

    Floats win over integers, integers over bools; among equals, arrays that have dimensions win
    over those that have none, and arrays over numbers.
    """
    first = getattr(operands[0], "dtype", None)
    for a in operands:  # the usual cases, quickly: equal dtypes, and floats with numbers
        if isinstance(a, xp.ndarray):
            if a.dtype != first:
                break
        elif first is None or first.kind != "f" or type(a) not in NUMBERS:
            break
    else:
        return first
    ranked = [_rank(a) for a in operands]
    top = max(rank for rank, _ in ranked)
    dtypes = {dtype for rank, dtype in ranked if rank == top}
    # ml_dtypes defines no promotion of bfloat16 and float16: neither can hold all of the other
    return float32 if dtypes == {BFLOAT16, float16} else xp.result_type(*dtypes)


def _rank(operand: Any) -> tuple[tuple[int, int], xp.dtype]:
    if isinstance(operand, xp.ndarray):
        return (KINDS[operand.dtype.kind], 2 if operand.ndim else 1), operand.dtype
    number = operand.item() if isinstance(operand, xp.generic) else operand
    if type(number) not in NUMBERS:
        raise TypeError(f"an operand is a tensor, an array or a number, not {operand!r}")
    dtype = NUMBERS[type(number)]
    return (KINDS[dtype.kind], 0), dtype


def _meet(operand: Any, dtype: xp.dtype) -> Any:
    if isinstance(operand, xp.ndarray):
        return operand if operand.dtype == dtype else operand.astype(dtype)
    number = operand.item() if isinstance(operand, xp.generic) else operand
    return number if type(number) is not int else wrapped(number, dtype)


def _meet_as_it_is(operand: Any, dtype: xp.dtype) -> Any:
    return _meet(operand, dtype if isinstance(operand, xp.ndarray) else DEFAULT)


def _meet_as_tensor(operand: Any, dtype: xp.dtype) -> xp.ndarray:
    if not isinstance(operand, xp.ndarray):
        raise TypeError(f"{operand!r} is not a tensor: md.tensor({operand!r}) makes one")
    return _meet(operand, dtype)


def wrapped(number: Any, dtype: xp.dtype) -> Any:
    """The number wrapped around into `dtype`, as in C and PyTorch: 300 becomes 44 in uint8."""
    low, high = RANGES.get(dtype, EVERY)
    if type(number) is not int or low <= number <= high:
        return number
    if not -(2**63) <= number < 2**64:  # NumPy refuses larger ones
        return number
    return (number - low) % (high - low + 1) + low


def want_numbers_fit(name: str, operands: tuple) -> None:
    """Refuse whole numbers that the common dtype of the operands cannot hold."""
    if int not in map(type, operands):
        return
    operands = tuple(a.data if isinstance(a, Tensor) else a for a in operands)
    dtype = result_dtype(operands)
    for n in operands:
        if type(n) is int:
            want_fit(name, n, dtype)


def want_one_dtype(name: str, *tensors: Any) -> None:
    """Refuse to multiply matrices of two dtypes, as PyTorch does."""
    dtypes = {t.dtype for t in tensors if t is not None}
    if len(dtypes) > 1 and not is_autocast_enabled():
        names = " and ".join(sorted(d.name for d in dtypes))
        raise RuntimeError(f"{name}: dtypes {names}: convert one with .to()")


def want_numbers(name: str, x: Tensor) -> None:
    """Refuse to sum products of bools, which NumPy would compute as "or" of "and"."""
    if x.dtype == bool_:
        raise NotImplementedError(f"{name} of bool: convert with .long() or .float() first")


def want_floating(name: str, x: Tensor) -> None:
    """Refuse integers and bools, because the result would be rounded to integers."""
    if not is_floating(x.data):
        raise RuntimeError(f"{name} of {x.dtype.name}: convert with .float() first")


def want_served(name: str, x: xp.ndarray) -> None:
    """Refuse integers and bools where PyTorch has no kernel for them."""
    if not is_floating(x):
        raise NotImplementedError(f"{name} of {x.dtype.name}: convert with .float() first")


def want_tensors(name: str, *tensors: Any) -> None:
    """Refuse a number where a tensor is required, as PyTorch does."""
    for place, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise TypeError(f"{name}: argument {place} is {t!r}: want a Tensor, md.tensor({t!r})")


def want_whole(name: str, dtype: xp.dtype, **factors: Any) -> None:
    """Refuse to scale integers by a fraction, and bools by anything: PyTorch rounds to 0."""
    if dtype.kind == "b":
        raise NotImplementedError(f"{name} of bools: convert with .long() or .float() first")
    for factor, value in factors.items() if dtype.kind in "iu" else ():
        if isinstance(value, float):
            raise RuntimeError(f"{name} of {dtype.name}: {factor}={value} must be an integer")


def axes_of(dim: Any, ndim: int) -> tuple[int, ...]:
    """The dimensions that `dim` (one, several, or None for all) means, none of them negative."""
    if dim is None or dim == () or dim == []:
        return tuple(range(ndim))
    dims, n = dim if isinstance(dim, tuple | list) else (dim,), max(ndim, 1)
    for d in dims:
        if d is True or d is False:  # keepdim passed as dim: it would count as 1 or 0
            raise TypeError(f"dim {d}: want a number, and other options by name (keepdim={d})")
        try:
            inside = -n <= operator.index(d) < n
        except TypeError:
            raise TypeError(f"dim {d!r}: want a whole number from {-n} to {n - 1}") from None
        if not inside:
            raise IndexError(f"dim {d} of a tensor of {ndim} dimensions: want {-n} to {n - 1}")
    found = tuple(d % n for d in dims)
    if len(set(found)) < len(found):
        raise RuntimeError(f"dim {dim} names a dimension twice")
    return found if ndim else ()


def is_integer(x: Tensor) -> bool:
    """Whether the tensor holds integers (bools are none)."""
    return x.dtype.kind in "iu"


OTHER_NAMES = {"axis": "dim", "keepdims": "keepdim"}


def with_axis(operation: Callable[..., Any]) -> Callable[..., Any]:
    """Let dim and keepdim be called axis and keepdims too, as NumPy does."""

    @functools.wraps(operation)
    def renamed(*args: Any, **options: Any) -> Any:
        if args and not isinstance(args[0], Tensor):
            want_tensors(operation.__name__, args[0])
        if options:
            options = {OTHER_NAMES.get(name, name): value for name, value in options.items()}
        try:
            return operation(*args, **options)
        except AttributeError as error:
            want_other(operation.__name__, error, args, options)
            raise

    renamed.teaches = True  # type: ignore[attr-defined]
    return renamed


def _refused(name: str, arrays: tuple, error: Exception) -> RuntimeError:
    try:
        xp.broadcast_shapes(*map(xp.shape, arrays))
    except ValueError:
        shapes = " and ".join(str(xp.shape(a)) for a in arrays)
        return RuntimeError(
            f"{name}: shapes {shapes} do not broadcast: from the right, sizes must be equal or 1"
        )
    return RuntimeError(f"{name}: {error}")


def _of_integers(name: str, arrays: list, error: TypeError) -> Exception:
    """The error itself, or, if NumPy made it of integers where floats are meant, what to do."""
    whole = {a.dtype.name for a in arrays if isinstance(a, xp.ndarray) and not is_floating(a)}
    if not whole or "UFunc" not in type(error).__name__:
        return error
    return NotImplementedError(f"{name} of {' and '.join(whole)}: convert with .float() first")
