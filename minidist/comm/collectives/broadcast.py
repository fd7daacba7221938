"""Broadcast: the root's array goes to every rank.

The algorithms, n ranks and S bytes: `linear` (n-1 messages from the root), `tree` (log2 n rounds),
`chain` (a pipeline of segments, for large arrays), `native`.
"""

from __future__ import annotations

from typing import Any

from ...kernels import arrays as xp
from ..buffers import fill
from ..communicator import Communicator, check_array, wait_all
from . import tags
from .auto import Algorithm, function_of
from .binomial import family
from .checks import check_algorithm, check_root
from .chunks import segments
from .entry import nonblocking
from .native import as_bytes, native_call


def linear(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """The root sends to every other rank: n-1 messages, (n-1)S bytes, all from the root."""
    if comm.rank != root:
        comm.recv(flat, root, tags.BROADCAST)
        return
    others = [k for k in range(comm.size) if k != root]
    wait_all([comm.isend(flat, k, tags.BROADCAST) for k in others])


def tree(comm: Communicator, flat: xp.ndarray, root: int = 0, tag: int = tags.BROADCAST) -> None:
    """Every rank that has the array sends it on along a binomial tree, which binomial.py draws.

    log2(n) rounds; all ranks send (n-1)S bytes, the root log2(n)·S.
    """
    parent, children = family(comm, root)
    if parent is not None:
        comm.recv(flat, parent, tag)
    wait_all([comm.isend(flat, child, tag) for child in children])


def chain(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """Rank to rank in a line, a segment at a time: all links are busy once the line is full.

        time      1     2     3     4     5
        0 -> 1    s0    s1    s2
        1 -> 2          s0    s1    s2
        2 -> 3                s0    s1    s2

    n - 2 + S/SEGMENT rounds of a segment; (n-1)S bytes, at most S a rank.
    """
    position = (comm.rank - root) % comm.size
    before, after, sends = (comm.rank - 1) % comm.size, (comm.rank + 1) % comm.size, []
    for part in segments(flat):
        if position > 0:
            comm.recv(part, before, tags.BROADCAST)
        if position < comm.size - 1:
            sends.append(comm.isend(part, after, tags.BROADCAST))
    wait_all(sends)


def native(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """MPI_Bcast."""
    native_call(comm, "Bcast", as_bytes(flat), root)


ALGORITHMS = {"linear": linear, "tree": tree, "chain": chain, "native": native}


def broadcast(
    comm: Communicator,
    array: xp.ndarray,
    root: int = 0,
    algorithm: Algorithm = "auto",
    label: str = "",
) -> xp.ndarray:
    """Fill `array` on every rank with the root's values, and return it.

    `algorithm`: a key of ALGORITHMS, a function like those, or "auto" (the table in auto.py).
    """
    where = f"rank {comm.rank} broadcast"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, ALGORITHMS)
    check_array(where, array)
    if comm.rank != root and not getattr(array.flags, "writeable", True):
        raise ValueError(f"{where}: the array is read-only, broadcast into a copy")
    with comm.collective("broadcast", array, label, root=root, algorithm=algorithm):
        by_host = xp.on_gpu(array) and not comm.cuda_aware and comm.size > 1
        work: Any = array
        work = work.get() if by_host else xp.ascontiguousarray(work)
        run = function_of("broadcast", ALGORITHMS, algorithm, comm.size, array.nbytes)
        run(comm, work.reshape(-1), root)
    if comm.rank != root and work is not array:
        fill(array, work)  # a strided array, or one on a GPU, was received into a copy
    return array


ibroadcast = nonblocking(broadcast)
