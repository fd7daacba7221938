"""Collectives with a root: broadcast, reduce, scatter and gather, each by several algorithms."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from ..communicator import Communicator, check_array
from ..shards import shard_bounds
from . import chain, linear, ring, tags, tree
from .checks import check_counts, check_known, check_rows
from .reduction import OPS, check_op

BROADCAST = {
    "linear": linear.broadcast_flat, "tree": tree.broadcast_flat, "chain": chain.broadcast_flat,
}  # fmt: skip
REDUCE = {"linear": linear.reduce_flat, "tree": tree.reduce_flat, "chain": chain.reduce_flat}
SCATTER = {"linear": linear.scatter_flat, "tree": tree.scatter_flat}
GATHER = {"linear": linear.gather_flat, "tree": tree.gather_flat}
HEADER = 16  # numbers: the dtype's name in 8, and up to 8 sizes


def broadcast(
    comm: Communicator, array: np.ndarray, root: int = 0, algorithm: str = "tree"
) -> np.ndarray:
    """Fill `array` on every rank with the root's, and return it: linear, tree or chain."""
    where = f"rank {comm.rank} broadcast"
    _check(comm, where, root, algorithm, BROADCAST)
    check_array(where, array)
    if comm.rank != root and not array.flags.writeable:
        raise ValueError(f"{where}: the array is read-only, broadcast into a copy")
    flat = array.reshape(-1) if array.flags.c_contiguous else array.flatten()
    BROADCAST[algorithm](comm, flat, root)
    if comm.rank != root and not array.flags.c_contiguous:
        array[...] = flat.reshape(array.shape)
    return array


def reduce(
    comm: Communicator, array: np.ndarray, root: int = 0, op: str = "sum", algorithm: str = "tree"
) -> np.ndarray | None:
    """The elementwise `op` of all ranks' arrays, on the root; None elsewhere."""
    where = f"rank {comm.rank} reduce"
    _check(comm, where, root, algorithm, REDUCE)
    check_op(where, array, op)
    work = array.copy(order="C")
    REDUCE[algorithm](comm, work.reshape(-1), OPS[op], root)
    if comm.rank != root:
        return None
    return np.divide(work, comm.size, out=work) if op == "mean" else work


def scatter(
    comm: Communicator, array: np.ndarray | None, root: int = 0,
    counts: Sequence[int] | None = None, algorithm: str = "tree",
) -> np.ndarray:  # fmt: skip
    """This rank's rows of the root's array; the others pass None.

    Rank k gets counts[k] rows, the same numbers on all ranks; by default they differ by one at
    most. What the root has, in dtype and shape, goes ahead in a small message.
    """
    where = f"rank {comm.rank} scatter"
    _check(comm, where, root, algorithm, SCATTER)
    if comm.rank == root:
        check_array(where, array)  # type: ignore[arg-type]
        check_rows(where, array)
    dtype, shape = _announced(comm, array, root)
    rows, bounds = row_bounds(comm, where, shape, counts)
    whole = np.empty(shape, dtype) if comm.rank != root else np.ascontiguousarray(array)
    SCATTER[algorithm](comm, whole.reshape(-1), bounds, root)
    return whole[slice(*rows[comm.rank])].copy()


def gather(
    comm: Communicator, array: np.ndarray, root: int = 0, counts: Sequence[int] | None = None,
    algorithm: str = "tree",
) -> np.ndarray | None:  # fmt: skip
    """Everyone's rows joined along axis 0 in rank order, on the root; None elsewhere."""
    where = f"rank {comm.rank} gather"
    _check(comm, where, root, algorithm, GATHER)
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    rows = ring.exchange_counts(comm, len(array)) if counts is None else list(counts)
    shape = (sum(rows), *array.shape[1:])
    _, bounds = row_bounds(comm, where, shape, rows)
    whole = np.empty(shape, array.dtype)
    whole.reshape(-1)[slice(*bounds[comm.rank])] = array.reshape(-1)
    GATHER[algorithm](comm, whole.reshape(-1), bounds, root)
    return whole if comm.rank == root else None


def row_bounds(
    comm: Communicator, where: str, shape: tuple, counts: Sequence[int] | None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Each rank's rows, and where they lie in a flat array of `shape`; counts must sum to all."""
    if counts is None:
        rows = shard_bounds(shape[0], comm.size)
    else:
        edges = np.cumsum([0, *counts]).tolist()
        if len(counts) != comm.size or min(counts) < 0 or edges[-1] != shape[0]:
            raise ValueError(
                f"{where}: counts={list(counts)}: want {comm.size} numbers, the rows of each rank, "
                f"that sum to {shape[0]}"
            )
        rows = list(pairwise(edges))
    width = int(np.prod(shape[1:]))
    return rows, [(a * width, b * width) for a, b in rows]


def _announced(comm: Communicator, array: np.ndarray | None, root: int) -> tuple[np.dtype, tuple]:
    """The root's dtype and shape, on every rank."""
    header = np.zeros(HEADER, np.int64)
    if comm.rank == root and array is not None:
        told = array.dtype.str.encode()
        header[: len(told)] = list(told)
        header[7], header[8 : 8 + array.ndim] = array.ndim, array.shape
    tree.broadcast_flat(comm, header, root, tags.SCATTER)
    name = bytes(int(c) for c in header[:7] if c).decode()
    return np.dtype(name), tuple(header[8 : 8 + header[7]].tolist())


def _check(comm: Communicator, where: str, root: int, algorithm: str, known: dict) -> None:
    if not 0 <= operator.index(root) < comm.size:
        raise ValueError(f"{where}: root={root} does not exist, ranks are 0 to {comm.size - 1}")
    check_known(where, "algorithm", algorithm, known, "use")
