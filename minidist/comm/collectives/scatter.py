"""Scatter: the root's rows are handed out, rank k gets part k.

The algorithms, n ranks and S bytes: `linear` (n-1 messages from the root), `tree` (log2 n rounds,
but a part is sent once for each level of the tree that it passes), `native`.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence

import numpy as np

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array, wait_all
from . import tags
from .auto import Algorithm, function_of
from .binomial import family, subtree
from .broadcast import tree as tree_broadcast
from .checks import check_algorithm, check_root, check_rows
from .chunks import Bounds, chunk, empty_for, pack, row_bounds, unpack
from .entry import by_host, nonblocking
from .native import as_bytes, chunks_as_bytes, native_call

# The header has LETTERS numbers for the dtype's name, then ndim, then up to SIZES sizes. If these
# do not fit, ndim is LONG, followed by the length of a second message that holds everything.
LETTERS, SIZES, LONG = 7, 8, -1
HEADER = LETTERS + 1 + SIZES


def linear(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """The root sends every rank its chunk: n-1 messages, (n-1)/n·S bytes."""
    if comm.rank != root:
        comm.recv(chunk(flat, bounds, comm.rank), root, tags.SCATTER)
        return
    others = [k for k in range(comm.size) if k != root]
    wait_all([comm.isend(chunk(flat, bounds, k), k, tags.SCATTER) for k in others])


def tree(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Each rank receives the chunks of its whole subtree and sends on those of its children.

        0 sends  4 5 6 7  to 4, then  2 3  to 2, then  1  to 1;  4 sends  6 7  to 6, then  5  to 5

    log2(n) rounds; a chunk is sent once for every edge of the tree on its way (binomial.py).
    """
    parent, children = family(comm, root)
    if parent is not None:
        ranks = subtree(comm, comm.rank, root)
        message = comm.recv(empty_for(flat, bounds, ranks), parent, tags.SCATTER)
        unpack(message, flat, bounds, ranks)
    sends = [
        comm.isend(pack(flat, bounds, subtree(comm, child, root)), child, tags.SCATTER)
        for child in children
    ]
    wait_all(sends)


def native(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """MPI_Scatterv."""
    mine = xp.empty_like(chunk(flat, bounds, comm.rank))
    native_call(comm, "Scatterv", chunks_as_bytes(flat, bounds), as_bytes(mine), root)
    chunk(flat, bounds, comm.rank)[...] = mine


ALGORITHMS = {"linear": linear, "tree": tree, "native": native}


@by_host
def scatter(
    comm: Communicator, array: xp.ndarray | None, root: int = 0,
    counts: Sequence[int] | None = None, algorithm: Algorithm = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """This rank's rows of the root's array; the other ranks pass None.

    Rank k gets counts[k] rows, the same numbers on all ranks; by default they differ by one at
    most. A small message ahead tells the dtype and shape of the root's array. An array on a GPU
    comes back on the GPU on the root, on the host on the other ranks.
    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} scatter"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    if comm.rank == root:
        check_array(where, array)  # refuses None too
        assert array is not None
        check_rows(where, array)
        row_bounds(comm, where, array.shape, counts)
    given = counts and list(counts)
    with comm.collective("scatter", label=label, root=root, counts=given, algorithm=algorithm):
        dtype, shape = _broadcast_header(comm, array, root)
        rows, bounds = row_bounds(comm, where, shape, counts)
        whole = np.empty(shape, dtype) if comm.rank != root else xp.ascontiguousarray(array)
        run = function_of("scatter", ALGORITHMS, algorithm, comm.size, whole.nbytes)
        run(comm, whole.reshape(-1), bounds, root)
    return whole[slice(*rows[comm.rank])].copy()  # (counts[rank], …)


iscatter = nonblocking(scatter)


def _broadcast_header(
    comm: Communicator, array: xp.ndarray | None, root: int
) -> tuple[xp.dtype, tuple]:
    """The dtype and shape of the root's array, on every rank."""
    header, rest = np.zeros(HEADER, np.int64), b""
    if comm.rank == root and array is not None:
        name = _name(array.dtype)
        if name is None or array.ndim > SIZES:
            rest = pickle.dumps((array.dtype, array.shape))
            header[LETTERS : LETTERS + 2] = LONG, len(rest)
        else:
            header[:LETTERS].view(f"S{8 * LETTERS}")[0] = name
            header[LETTERS : LETTERS + 1 + array.ndim] = array.ndim, *array.shape
    tree_broadcast(comm, header, root, tags.SCATTER)
    ndim, *sizes = header[LETTERS:].tolist()
    if ndim != LONG:
        return xp.dtype(header[:LETTERS].tobytes().rstrip(b"\0").decode()), tuple(sizes[:ndim])
    message = np.frombuffer(bytearray(rest or sizes[0]), np.uint8)
    tree_broadcast(comm, message, root, tags.SCATTER)
    return pickle.loads(message.tobytes())


def _name(dtype: xp.dtype) -> bytes | None:
    """A name from which np.dtype makes this dtype, if there is one and it fits into the header.

    A structured dtype has no such name: its str and its name give only the number of bytes.
    """
    # bfloat16 needs its name: its kind is "V", so its str gives only the number of bytes, 2
    name = dtype.name if dtype.kind == "V" else dtype.str
    try:
        fits = xp.dtype(name) == dtype and len(name) <= 8 * LETTERS
    except TypeError:
        return None
    return name.encode() if fits else None
