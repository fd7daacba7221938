"""Collectives with a root: broadcast, reduce, scatter and gather, each by several algorithms."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate, pairwise

import numpy

from ...kernels import arrays as xp
from ..communicator import Communicator, check_array
from ..devices import fill
from ..shards import shard_bounds
from . import chain, linear, native, ring, tags, tree
from .auto import choose
from .checks import check_algorithm, check_counts, check_root, check_rows
from .entry import by_host
from .reduction import OPS, check_op

BROADCAST = {
    "linear": linear.broadcast_flat, "tree": tree.broadcast_flat, "chain": chain.broadcast_flat,
    "native": native.broadcast_flat,
}  # fmt: skip
REDUCE = {
    "linear": linear.reduce_flat, "tree": tree.reduce_flat, "chain": chain.reduce_flat,
    "native": native.reduce_flat,
}  # fmt: skip
SCATTER = {
    "linear": linear.scatter_flat, "tree": tree.scatter_flat, "native": native.scatter_flat,
}  # fmt: skip
GATHER = {"linear": linear.gather_flat, "tree": tree.gather_flat, "native": native.gather_flat}
HEADER = 16  # numbers: the dtype's name in 8, and up to 8 sizes


def broadcast(
    comm: Communicator, array: xp.ndarray, root: int = 0, algorithm: str = "auto", label: str = ""
) -> xp.ndarray:
    """Fill `array` on every rank with the root's, and return it: linear, tree, chain or native."""
    where = f"rank {comm.rank} broadcast"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, BROADCAST)
    check_array(where, array)
    if comm.rank != root and not getattr(array.flags, "writeable", True):
        raise ValueError(f"{where}: the array is read-only, broadcast into a copy")
    with comm.collective("broadcast", array, label, root=root, algorithm=algorithm):
        there = xp.on_gpu(array) and not comm.cuda_aware and comm.size > 1
        work = array.get() if there else xp.ascontiguousarray(array)
        run = BROADCAST[choose("broadcast", algorithm, comm.size, array.nbytes)]
        run(comm, work.reshape(-1), root)
    if comm.rank != root and work is not array:
        fill(array, work)
    return array


@by_host
def reduce(
    comm: Communicator, array: xp.ndarray, root: int = 0, op: str = "sum", algorithm: str = "auto",
    label: str = "",
) -> xp.ndarray | None:  # fmt: skip
    """The elementwise `op` of all ranks' arrays, on the root; None elsewhere."""
    where = f"rank {comm.rank} reduce"
    check_root(comm, where, root)
    check_op(where, array, op)
    check_algorithm(comm, where, algorithm, REDUCE, array, op)
    told = {"reduction": op, "root": root, "algorithm": algorithm}
    with comm.collective("reduce", array, label, **told):
        work = array.copy(order="C")
        run = REDUCE[choose("reduce", algorithm, comm.size, work.nbytes)]
        run(comm, work.reshape(-1), comm.reducing(OPS[op]), root)
    if comm.rank != root:
        return None
    return xp.divide(work, comm.size, out=work) if op == "mean" else work


@by_host
def scatter(
    comm: Communicator, array: xp.ndarray | None, root: int = 0,
    counts: Sequence[int] | None = None, algorithm: str = "auto", label: str = "",
) -> xp.ndarray:  # fmt: skip
    """This rank's rows of the root's array; the others pass None.

    Rank k gets counts[k] rows, the same numbers on all ranks; by default they differ by one at
    most. What the root has, in dtype and shape, goes ahead in a small message. An array on a GPU
    comes back there on the root, on the host elsewhere.
    """
    where = f"rank {comm.rank} scatter"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, SCATTER)
    if comm.rank == root:
        check_array(where, array)  # also None
        assert array is not None
        check_rows(where, array)
        row_bounds(comm, where, array.shape, counts)
    told = {"root": root, "counts": counts and list(counts), "algorithm": algorithm}
    with comm.collective("scatter", label=label, **told):
        dtype, shape = _announced(comm, array, root)
        rows, bounds = row_bounds(comm, where, shape, counts)
        whole = numpy.empty(shape, dtype) if comm.rank != root else xp.ascontiguousarray(array)
        run = SCATTER[choose("scatter", algorithm, comm.size, whole.nbytes)]
        run(comm, whole.reshape(-1), bounds, root)
    return whole[slice(*rows[comm.rank])].copy()


@by_host
def gather(
    comm: Communicator, array: xp.ndarray, root: int = 0, counts: Sequence[int] | None = None,
    algorithm: str = "auto", label: str = "",
) -> xp.ndarray | None:  # fmt: skip
    """Everyone's rows joined along axis 0 in rank order, on the root; None elsewhere."""
    where = f"rank {comm.rank} gather"
    check_root(comm, where, root)
    check_algorithm(comm, where, algorithm, GATHER)
    check_array(where, array)
    check_rows(where, array)
    check_counts(comm, where, len(array), counts)
    told = {"root": root, "counts": counts and list(counts), "algorithm": algorithm}
    with comm.collective("gather", array, label, array.shape[1:], **told):
        rows = ring.exchange_counts(comm, len(array)) if counts is None else list(counts)
        shape = (sum(rows), *array.shape[1:])
        _, bounds = row_bounds(comm, where, shape, rows)
        whole = xp.empty_like(array, shape=shape, order="C")
        whole.reshape(-1)[slice(*bounds[comm.rank])] = array.reshape(-1)
        run = GATHER[choose("gather", algorithm, comm.size, whole.nbytes)]
        run(comm, whole.reshape(-1), bounds, root)
    return whole if comm.rank == root else None


def row_bounds(
    comm: Communicator, where: str, shape: tuple, counts: Sequence[int] | None
) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Each rank's rows, and where they lie in a flat array of `shape`; counts must sum to all."""
    if counts is None:
        rows = shard_bounds(shape[0], comm.size)
    else:
        edges = [*accumulate(counts, initial=0)]
        if len(counts) != comm.size or min(counts) < 0 or edges[-1] != shape[0]:
            raise ValueError(
                f"{where}: counts={list(counts)}: want {comm.size} numbers, the rows of each rank, "
                f"that sum to {shape[0]}"
            )
        rows = list(pairwise(edges))
    width = math.prod(shape[1:])
    return rows, [(a * width, b * width) for a, b in rows]


def _announced(comm: Communicator, array: xp.ndarray | None, root: int) -> tuple[xp.dtype, tuple]:
    """The root's dtype and shape, on every rank."""
    header = numpy.zeros(HEADER, numpy.int64)
    if comm.rank == root and array is not None:
        # bfloat16 is known by its name alone: its kind is "V", so its str says no more than 2 bytes
        name = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
        header[:2].view("S16")[0] = name.encode()
        header[7], header[8 : 8 + array.ndim] = array.ndim, array.shape
    tree.broadcast_flat(comm, header, root, tags.SCATTER)
    return xp.dtype(header[:2].view("S16")[0].decode()), tuple(header[8 : 8 + header[7]].tolist())
