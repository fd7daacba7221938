"""Collectives in which everyone gets a part: reduce-scatter, all-to-all and scan."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..communicator import Communicator, check_array
from . import bruck, chain, doubling, pairwise, ring
from .checks import check_known, check_rows
from .reduction import OPS, check_op
from .rooted import row_bounds

REDUCE_SCATTER = {
    "ring": ring.reduce_scatter_flat, "halving": doubling.reduce_scatter_flat,
    "pairwise": pairwise.reduce_scatter_flat,
}  # fmt: skip
SCAN = {"chain": chain.scan_flat, "doubling": doubling.scan_flat}
ALL_TO_ALL = ("pairwise", "bruck")


def reduce_scatter(
    comm: Communicator, array: np.ndarray, op: str = "sum", algorithm: str = "ring",
    counts: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """This rank's rows of the elementwise `op` of all ranks' arrays, of one shape.

    Rank k gets counts[k] rows; by default they differ by one at most.
    """
    where = f"rank {comm.rank} reduce_scatter"
    check_known(where, "algorithm", algorithm, REDUCE_SCATTER, "use")
    check_op(where, array, op)
    check_rows(where, array)
    rows, bounds = row_bounds(comm, where, array.shape, counts)
    work = array.copy(order="C")
    if comm.size > 1:
        REDUCE_SCATTER[algorithm](comm, work.reshape(-1), bounds, OPS[op])
    mine = work[slice(*rows[comm.rank])].copy()
    return np.divide(mine, comm.size, out=mine) if op == "mean" else mine


def all_to_all(
    comm: Communicator, array: np.ndarray, counts: Sequence[int] | None = None,
    coming: Sequence[int] | None = None, algorithm: str = "pairwise",
) -> np.ndarray:  # fmt: skip
    """Some of this rank's rows to each rank, and what each has for this one, joined by rank.

    Rank k gets counts[k] rows; by default they differ by one at most. `coming`, what each rank
    sends here, saves the small exchange that finds it out. bruck takes rows that divide evenly.
    """
    where = f"rank {comm.rank} all_to_all"
    check_known(where, "algorithm", algorithm, ALL_TO_ALL, "use")
    check_array(where, array)
    check_rows(where, array)
    rest, flat = array.shape[1:], np.ascontiguousarray(array).reshape(-1)
    if algorithm == "bruck":
        if counts is not None or len(array) % comm.size:
            raise ValueError(f"{where}: bruck takes rows that {comm.size} ranks divide evenly")
        return bruck.all_to_all_flat(comm, flat.reshape(comm.size, -1)).reshape(array.shape)
    counts, coming = row_counts(comm, where, array, counts, coming)
    _, going = row_bounds(comm, where, array.shape, counts)
    out = np.empty((sum(coming), *rest), array.dtype)
    _, arriving = row_bounds(comm, where, out.shape, coming)
    pairwise.all_to_all_flat(comm, flat, going, out.reshape(-1), arriving)
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


def scan(
    comm: Communicator, array: np.ndarray, op: str = "sum", algorithm: str = "doubling"
) -> np.ndarray:
    """The elementwise `op` of the arrays of ranks 0 to this one."""
    where = f"rank {comm.rank} scan"
    check_known(where, "algorithm", algorithm, SCAN, "use")
    check_op(where, array, op)
    work = array.copy(order="C")
    SCAN[algorithm](comm, work.reshape(-1), OPS[op])
    return np.divide(work, comm.rank + 1, out=work) if op == "mean" else work
