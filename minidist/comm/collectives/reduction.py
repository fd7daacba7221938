"""All-reduce: check the arguments, choose an algorithm, run it in the output buffer."""

from __future__ import annotations

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from . import doubling, naive, native, pairwise, ring, tree
from .auto import choose
from .checks import check_algorithm, check_known
from .entry import by_host

OPS = {"sum": xp.add, "prod": xp.multiply, "max": xp.maximum, "min": xp.minimum, "mean": xp.add}
ALGORITHMS = {
    "ring": ring.all_reduce_flat,
    "naive": naive.all_reduce_flat,
    "tree": tree.all_reduce_flat,
    "doubling": doubling.all_reduce_flat,
    "ordered": pairwise.all_reduce_in_order,
    "rabenseifner": doubling.rabenseifner_flat,
    "native": native.all_reduce_flat,
}


@by_host
def all_reduce(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: str = "auto",
    out: xp.ndarray | None = None, label: str = "",
) -> xp.ndarray:  # fmt: skip
    """Every rank gets the elementwise `op` of all ranks' arrays, the same bits everywhere.

    `op` is sum, prod, max, min or mean; `algorithm` a name of ALGORITHMS, or "auto" (auto.py says
    which that is). `array` stays as it was, unless it is also `out`. Every rank passes the same
    shape and dtype. `label` names the call in what the guard says.
    """
    where = f"rank {comm.rank} all_reduce"
    _check(comm, where, array, op, algorithm, out)
    with comm.collective("all_reduce", array, label, reduction=op, algorithm=algorithm):
        result = xp.empty_like(array, order="C") if out is None else out
        work = result if result.flags.c_contiguous else xp.empty_like(array, order="C")
        if work is not array:
            xp.copyto(work, array)
        if comm.size > 1:
            run = ALGORITHMS[choose("all_reduce", algorithm, comm.size, work.nbytes)]
            run(comm, work.reshape(-1), comm.reducing(OPS[op]))
    if op == "mean":
        xp.divide(work, comm.size, out=work)
    if work is not result:
        xp.copyto(result, work)
    return result


def check_op(where: str, array: xp.ndarray, op: str) -> None:
    """Refuse an unknown operation, what is no array, and a mean of integers."""
    check_known(where, "op", op, OPS)
    check_array(where, array)
    if op == "mean" and array.dtype.kind in "biu":
        raise TypeError(f"{where}: the mean of {array.dtype} is no {array.dtype}: use op='sum'")


def _check(
    comm: Communicator, where: str, array: xp.ndarray, op: str, algorithm: str,
    out: xp.ndarray | None,
) -> None:  # fmt: skip
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, ALGORITHMS, array, op)
    if out is not None:
        _check_out(where, array, out)


def _check_out(where: str, array: xp.ndarray, out: xp.ndarray) -> None:
    if not isinstance(out, xp.ndarray) or not getattr(out.flags, "writeable", True):
        raise TypeError(f"{where}: `out` must be a NumPy array that can be written")
    if out.shape != array.shape or out.dtype != array.dtype:
        raise ValueError(
            f"{where}: `out` is {out.dtype} {out.shape}, but the array is "
            f"{array.dtype} {array.shape}: they must agree"
        )
