"""All-gather: check the arguments, find out who has how much, join in one buffer."""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from . import bruck, doubling, native, ring, tags
from .auto import choose
from .checks import check_algorithm, check_counts, check_rows
from .entry import by_host
from .rooted import row_bounds

ALGORITHMS = {
    "ring": ring.all_gather_flat, "doubling": doubling.all_gather_flat,
    "bruck": bruck.all_gather_flat, "native": native.all_gather_flat,
}  # fmt: skip


@by_host
def all_gather(
    comm: Communicator, array: xp.ndarray, counts: Sequence[int] | None = None,
    algorithm: str = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """Everyone's rows, joined along axis 0 in rank order; the shards may be uneven or empty.

    `counts`, the rows on each rank, saves the small exchange that finds them out.
    """
    where = f"rank {comm.rank} all_gather"
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    told = {"counts": counts and list(counts), "algorithm": algorithm}
    with comm.collective("all_gather", array, label, array.shape[1:], **told):
        rows = ring.exchange_counts(comm, len(array)) if counts is None else list(counts)
        result = xp.empty_like(array, shape=(sum(rows), *array.shape[1:]), order="C")
        (_, bounds), flat = row_bounds(comm, where, result.shape, rows), result.reshape(-1)
        flat[slice(*bounds[comm.rank])] = array.reshape(-1)
        run = ALGORITHMS[choose("all_gather", algorithm, comm.size, result.nbytes)]
        run(comm, flat, bounds, tags.ALL_GATHER)
    return result
