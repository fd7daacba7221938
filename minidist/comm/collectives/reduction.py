"""All-reduce: check the arguments, choose the algorithm, reduce in one output buffer."""

from __future__ import annotations

import numpy as np

from ..communicator import Communicator, check_array
from . import doubling, naive, native, ring, tree
from .checks import check_known

OPS = {"sum": np.add, "prod": np.multiply, "max": np.maximum, "min": np.minimum, "mean": np.add}
SMALL = 1 << 18
ALGORITHMS = {
    "ring": ring.all_reduce_flat,
    "naive": naive.all_reduce_flat,
    "tree": tree.all_reduce_flat,
    "doubling": doubling.all_reduce_flat,
    "rabenseifner": doubling.rabenseifner_flat,
    "native": native.all_reduce_flat,
}


def all_reduce(
    comm: Communicator,
    array: np.ndarray,
    op: str = "sum",
    algorithm: str = "ring",
    out: np.ndarray | None = None,
) -> np.ndarray:
    """Every rank gets the elementwise `op` of all ranks' arrays, the same bits everywhere.

    algorithm "auto" is doubling up to SMALL bytes, whose latency it is that counts, and ring beyond
    (benchmarks/collectives.py, 2 and 4 ranks on 2 cores).

    `array` stays as it was, unless it is also `out`. Every rank passes the same shape and dtype.
    """
    if algorithm == "auto":
        algorithm = "doubling" if getattr(array, "nbytes", 0) <= SMALL else "ring"
    _check(comm, array, op, algorithm, out)
    result = np.empty(array.shape, array.dtype) if out is None else out
    work = result if result.flags.c_contiguous else np.empty(array.shape, array.dtype)
    if work is not array:
        np.copyto(work, array)
    if comm.size > 1:
        ALGORITHMS[algorithm](comm, work.reshape(-1), OPS[op])
    if op == "mean":
        np.divide(work, comm.size, out=work)
    if work is not result:
        np.copyto(result, work)
    return result


def check_op(where: str, array: np.ndarray, op: str) -> None:
    """Refuse an unknown operation, what is no array, and a mean of integers."""
    check_known(where, "op", op, OPS)
    check_array(where, array)
    if op == "mean" and not np.issubdtype(array.dtype, np.inexact):
        raise TypeError(f"{where}: the mean of {array.dtype} is no {array.dtype}: use op='sum'")


def _check(
    comm: Communicator, array: np.ndarray, op: str, algorithm: str, out: np.ndarray | None
) -> None:
    where = f"rank {comm.rank} all_reduce"
    check_op(where, array, op)
    check_known(where, "algorithm", algorithm, ["auto", *ALGORITHMS])
    if out is not None:
        _check_out(where, array, out)
    if algorithm == "native":
        native.check(comm, array, op)


def _check_out(where: str, array: np.ndarray, out: np.ndarray) -> None:
    if not isinstance(out, np.ndarray) or not out.flags.writeable:
        raise TypeError(f"{where}: `out` must be a NumPy array that can be written")
    if out.shape != array.shape or out.dtype != array.dtype:
        raise ValueError(
            f"{where}: `out` is {out.dtype} {out.shape}, but the array is "
            f"{array.dtype} {array.shape}: they must agree"
        )
