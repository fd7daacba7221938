"""The operations that `op` may name in all_reduce, reduce, reduce_scatter and scan."""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import numpy as np

from ...kernels import arrays as xp
from ...kernels import half_precision
from ..communicator import check_array
from .checks import check_known

OPS = {"sum": xp.add, "prod": xp.multiply, "max": xp.maximum, "min": xp.minimum, "mean": xp.add}

NUMBERS = "biufc"  # the kinds of dtype that have every operation


def check_op(where: str, array: xp.ndarray, op: str) -> None:
    """Refuse unknown operations, non-arrays, dtypes without the operation, means of integers."""
    check_known(where, "op", op, OPS)
    check_array(where, array)
    if array.dtype.kind not in NUMBERS and not _has(array.dtype, op):
        raise TypeError(
            f"{where}: there is no {op} of {array.dtype}: pass numbers, such as each field of a "
            "structured array by itself"
        )
    if op == "mean" and array.dtype.kind in "biu":
        raise TypeError(f"{where}: the mean of {array.dtype} is no {array.dtype}: use op='sum'")


@cache
def _has(dtype: xp.dtype, op: str) -> bool:
    """Whether the operation takes this dtype and returns it (a sum of strings is a longer dtype).

    This is checked before the first message, because a rank that fails later leaves others waiting.
    """
    none = np.empty(0, dtype)
    try:
        return OPS[op](none, none).dtype == dtype.newbyteorder("=")
    except TypeError:
        return False


def combine_of(op: str, dtype: xp.dtype) -> Any:
    """The function (a, b, out=) that combines two arrays: a ufunc, or one for 16-bit numbers.

    NumPy adds float16, and ml_dtypes bfloat16, number by number: a loop takes a tenth of the time.
    """
    if dtype.char not in "eE":
        return OPS[op]
    return half_precision.add if OPS[op] is xp.add else partial(_without_warning, OPS[op])


def _without_warning(combine: xp.ufunc, *arrays: xp.ndarray, **options: Any) -> xp.ndarray:
    with np.errstate(invalid="ignore"):  # the largest of numbers with a NaN is NaN, no error
        return combine(*arrays, **options)


def divide_if_mean(total: xp.ndarray, op: str, count: int) -> xp.ndarray:
    """The mean of `count` arrays from their sum, in place; the total of every other operation."""
    return xp.divide(total, count, out=total) if op == "mean" else total
