"""All-gather: check the arguments, find out who has how much, join in one buffer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..communicator import Communicator, check_array
from . import bruck, doubling, ring, tags
from .checks import check_counts, check_known, check_rows
from .rooted import row_bounds

ALGORITHMS = {
    "ring": ring.all_gather_flat, "doubling": doubling.all_gather_flat,
    "bruck": bruck.all_gather_flat,
}  # fmt: skip


def all_gather(
    comm: Communicator, array: np.ndarray, counts: Sequence[int] | None = None,
    algorithm: str = "ring",
) -> np.ndarray:  # fmt: skip
    """Everyone's rows, joined along axis 0 in rank order; the shards may be uneven or empty.

    `counts`, the rows on each rank, saves the small exchange that finds them out.
    """
    where = f"rank {comm.rank} all_gather"
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    check_known(where, "algorithm", algorithm, ALGORITHMS)
    rows = ring.exchange_counts(comm, len(array)) if counts is None else list(counts)
    result = np.empty((sum(rows), *array.shape[1:]), array.dtype)
    (_, bounds), flat = row_bounds(comm, where, result.shape, rows), result.reshape(-1)
    flat[slice(*bounds[comm.rank])] = array.reshape(-1)
    ALGORITHMS[algorithm](comm, flat, bounds, tags.ALL_GATHER)
    return result
