"""The operations that `op` may name in all_reduce, reduce, reduce_scatter and scan."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import check_array
from .checks import check_known

OPS = {"sum": xp.add, "prod": xp.multiply, "max": xp.maximum, "min": xp.minimum, "mean": xp.add}


def check_op(where: str, array: xp.ndarray, op: str) -> None:
    """Refuse an unknown operation, an argument that is no array, and a mean of integers."""
    check_known(where, "op", op, OPS)
    check_array(where, array)
    if op == "mean" and array.dtype.kind in "biu":
        raise TypeError(f"{where}: the mean of {array.dtype} is no {array.dtype}: use op='sum'")


def divide_if_mean(total: xp.ndarray, op: str, count: int) -> xp.ndarray:
    """The mean of `count` arrays from their sum, in place; the total of every other operation."""
    return xp.divide(total, count, out=total) if op == "mean" else total
