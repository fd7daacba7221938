"""Gather: the root gets all ranks' rows, joined in rank order.

The algorithms, n ranks and S bytes in all: `linear` (n-1 messages to the root), `tree` (log2 n
rounds, but a part is sent once for each level of the tree that it passes), `native`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array, wait_all
from . import tags
from .all_gather import all_gather_counts
from .auto import Algorithm, function_of
from .binomial import family, subtree
from .checks import check_algorithm, check_counts, check_root, check_rows
from .chunks import Bounds, chunk, empty_for, pack, row_bounds, unpack
from .entry import by_host, nonblocking
from .native import as_bytes, chunks_as_bytes, native_call


def linear(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Every rank sends the root its chunk: n-1 messages, (n-1)/n·S bytes."""
    if comm.rank != root:
        comm.send(chunk(flat, bounds, comm.rank), root, tags.GATHER)
        return
    others = [k for k in range(comm.size) if k != root]
    wait_all([comm.irecv(chunk(flat, bounds, k), k, tags.GATHER) for k in others])


def tree(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Each rank collects the chunks of its subtree and sends them to its parent in one message.

    log2(n) rounds; a chunk is sent once for every edge of the tree on its way (binomial.py).
    """
    parent, children = family(comm, root)
    for child in reversed(children):
        ranks = subtree(comm, child, root)
        message = comm.recv(empty_for(flat, bounds, ranks), child, tags.GATHER)
        unpack(message, flat, bounds, ranks)
    if parent is not None:
        comm.send(pack(flat, bounds, subtree(comm, comm.rank, root)), parent, tags.GATHER)


def native(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """MPI_Gatherv."""
    mine = chunk(flat, bounds, comm.rank).copy()
    native_call(comm, "Gatherv", as_bytes(mine), chunks_as_bytes(flat, bounds), root)


ALGORITHMS = {"linear": linear, "tree": tree, "native": native}


@by_host
def gather(
    comm: Communicator, array: xp.ndarray, root: int = 0, counts: Sequence[int] | None = None,
    algorithm: Algorithm = "auto", label: str = "",
) -> xp.ndarray | None:  # fmt: skip
    """All ranks' rows joined along axis 0 in rank order, on the root; None on the other ranks.

    `counts`, the rows of each rank, saves the small exchange that finds them out.
    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} gather"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    given = counts and list(counts)
    with comm.collective(
        "gather", array, label, array.shape[1:], root=root, counts=given, algorithm=algorithm
    ):
        rows = all_gather_counts(comm, len(array)) if counts is None else list(counts)
        shape = (sum(rows), *array.shape[1:])  # of the whole
        _, bounds = row_bounds(comm, where, shape, rows)
        whole = xp.empty_like(array, shape=shape, order="C")
        chunk(whole.reshape(-1), bounds, comm.rank)[...] = array.reshape(-1)
        run = function_of("gather", ALGORITHMS, algorithm, comm.size, whole.nbytes)
        run(comm, whole.reshape(-1), bounds, root)
    return whole if comm.rank == root else None


igather = nonblocking(gather)
