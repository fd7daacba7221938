"""Collectives in which everyone gets a part: reduce-scatter, all-to-all and scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from . import bruck, chain, doubling, native, pairwise, ring
from .auto import choose
from .checks import check_algorithm, check_rows
from .entry import by_host
from .reduction import OPS, check_op
from .rooted import row_bounds

REDUCE_SCATTER = {
    "ring": ring.reduce_scatter_flat, "halving": doubling.reduce_scatter_flat,
    "pairwise": pairwise.reduce_scatter_flat, "ordered": pairwise.reduce_scatter_in_order,
    "native": native.reduce_scatter_flat,
}  # fmt: skip
SCAN = {"chain": chain.scan_flat, "doubling": doubling.scan_flat, "native": native.scan_flat}
ALL_TO_ALL = {"pairwise": pairwise.all_to_all_flat, "native": native.all_to_all_flat}


@by_host
def reduce_scatter(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: str = "auto",
    counts: Sequence[int] | None = None, label: str = "",
) -> xp.ndarray:  # fmt: skip
    """This rank's rows of the elementwise `op` of all ranks' arrays, of one shape.

    Rank k gets counts[k] rows; by default they differ by one at most.
    """
    where = f"rank {comm.rank} reduce_scatter"
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, REDUCE_SCATTER, array, op)
    check_rows(where, array)
    rows, bounds = row_bounds(comm, where, array.shape, counts)
    told = {"reduction": op, "counts": counts and list(counts), "algorithm": algorithm}
    with comm.collective("reduce_scatter", array, label, **told):
        work = array.copy(order="C")
        if comm.size > 1:
            run = REDUCE_SCATTER[choose("reduce_scatter", algorithm, comm.size, work.nbytes)]
            run(comm, work.reshape(-1), bounds, comm.reducing(OPS[op]))
    mine = work[slice(*rows[comm.rank])].copy()
    return xp.divide(mine, comm.size, out=mine) if op == "mean" else mine


@by_host
def all_to_all(
    comm: Communicator, array: xp.ndarray, counts: Sequence[int] | None = None,
    coming: Sequence[int] | None = None, algorithm: str = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """Some of this rank's rows to each rank, and what each has for this one, joined by rank.

    Rank k gets counts[k] rows; by default they differ by one at most. `coming`, what each rank
    sends here, saves the small exchange that finds it out (all ranks pass it, or none). bruck takes
    rows that divide evenly, as many on each rank.
    """
    where = f"rank {comm.rank} all_to_all"
    check_algorithm(comm, where, algorithm, ["pairwise", "bruck", "native"])
    check_array(where, array)
    check_rows(where, array)
    if algorithm == "bruck" and (counts is not None or len(array) % comm.size):
        raise ValueError(f"{where}: bruck takes rows that {comm.size} ranks divide evenly")
    row_bounds(comm, where, array.shape, counts)
    shape = array.shape if algorithm == "bruck" else array.shape[1:]
    with comm.collective("all_to_all", array, label, shape, algorithm=algorithm):
        if algorithm == "bruck":
            blocks = xp.ascontiguousarray(array).reshape(comm.size, -1)
            return bruck.all_to_all_flat(comm, blocks).reshape(array.shape)
        return _exchange(
            comm, where, array, counts, coming, choose("all_to_all", algorithm, comm.size, 0)
        )


def _exchange(
    comm: Communicator, where: str, array: xp.ndarray, counts: Sequence[int] | None,
    coming: Sequence[int] | None, algorithm: str,
) -> xp.ndarray:  # fmt: skip
    counts, coming = row_counts(comm, where, array, counts, coming)
    _, going = row_bounds(comm, where, array.shape, counts)
    out = xp.empty_like(array, shape=(sum(coming), *array.shape[1:]), order="C")
    _, arriving = row_bounds(comm, where, out.shape, coming)
    flat = xp.ascontiguousarray(array).reshape(-1)
    ALL_TO_ALL[algorithm](comm, flat, going, out.reshape(-1), arriving)
    return out


def row_counts(
    comm: Communicator, where: str, array: Any, counts: Sequence[int] | None = None,
    coming: Sequence[int] | None = None,
) -> tuple[list[int], list[int]]:  # fmt: skip
    """How many rows of an array, or a tensor, go to each rank, and how many come from each."""
    check_rows(where, array)
    rows, _ = row_bounds(comm, where, array.shape, counts)
    going = [stop - start for start, stop in rows]
    return going, pairwise.exchange_counts(comm, going) if coming is None else list(coming)


@by_host
def scan(
    comm: Communicator, array: xp.ndarray, op: str = "sum", algorithm: str = "auto",
    label: str = "",
) -> xp.ndarray:  # fmt: skip
    """The elementwise `op` of the arrays of ranks 0 to this one."""
    where = f"rank {comm.rank} scan"
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, SCAN, array, op)
    with comm.collective("scan", array, label, reduction=op, algorithm=algorithm):
        work = array.copy(order="C")
        run = SCAN[choose("scan", algorithm, comm.size, work.nbytes)]
        run(comm, work.reshape(-1), comm.reducing(OPS[op]))
    return xp.divide(work, comm.rank + 1, out=work) if op == "mean" else work
