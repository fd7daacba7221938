"""The MPI library's own collectives: fast, and free to choose an order of summation."""

from __future__ import annotations

from typing import Any

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..errors import MpiError
from .chunks import Bounds

ARITHMETIC = ("sum", "prod", "mean")


def check(comm: Communicator, array: xp.ndarray | None = None, op: str = "") -> None:
    """Refuse it where there is no MPI library, or none that knows how to reduce this dtype."""
    if comm.prefix:
        raise ValueError("what goes on beside others is written by hand: use algorithm='auto'")
    if comm.native is None:
        raise MpiError("simulated ranks have no MPI library: use algorithm='auto'")
    if op and array is not None:
        kind, width = array.dtype.kind, array.dtype.itemsize
        known = kind in "iu" or (kind == "f" and width > 2) or (kind == "c" and op in ARITHMETIC)
        if not known or not array.dtype.isnative:
            raise MpiError(f"MPI has no {op} of {array.dtype}: use algorithm='auto'")


def all_reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place, by MPI_Allreduce."""
    comm.native.Allreduce(_in_place(), flat, op=_op(combine))


def reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc, root: int) -> None:
    """Root's `flat` becomes the reduction, by MPI_Reduce."""
    mine, out = (_in_place(), flat) if comm.rank == root else (flat, None)
    comm.native.Reduce(mine, out, op=_op(combine), root=root)


def scan_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """`flat` becomes the reduction of ranks 0 to this one, by MPI_Scan."""
    comm.native.Scan(_in_place(), flat, op=_op(combine))


def reduce_scatter_flat(
    comm: Communicator, flat: xp.ndarray, bounds: Bounds, combine: xp.ufunc
) -> None:
    """Chunk `rank` becomes the reduction of everyone's, by MPI_Reduce_scatter."""
    mine = xp.empty_like(flat[slice(*bounds[comm.rank])])
    comm.native.Reduce_scatter(flat, mine, [b - a for a, b in bounds], op=_op(combine))
    flat[slice(*bounds[comm.rank])] = mine


def broadcast_flat(comm: Communicator, flat: xp.ndarray, root: int) -> None:
    """Root's `flat` to everyone, by MPI_Bcast."""
    comm.native.Bcast(_bytes(flat), root)


def scatter_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of root's `flat` to rank k's, by MPI_Scatterv."""
    mine = xp.empty_like(flat[slice(*bounds[comm.rank])])
    comm.native.Scatterv(_chunks(flat, bounds), _bytes(mine), root)
    flat[slice(*bounds[comm.rank])] = mine


def gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, root: int) -> None:
    """Chunk k of rank k's `flat` to root's, by MPI_Gatherv."""
    mine = flat[slice(*bounds[comm.rank])].copy()
    comm.native.Gatherv(_bytes(mine), _chunks(flat, bounds), root)


def all_gather_flat(comm: Communicator, flat: xp.ndarray, bounds: Bounds, tag: int) -> None:
    """Everyone's chunk `rank` of `flat` to everyone, by MPI_Allgatherv."""
    comm.native.Allgatherv(_in_place(), _chunks(flat, bounds))


def all_to_all_flat(
    comm: Communicator, flat: xp.ndarray, going: Bounds, out: xp.ndarray, coming: Bounds
) -> None:
    """Chunk k of `flat` to rank k, into its chunk of `out`, by MPI_Alltoallv."""
    comm.native.Alltoallv(_chunks(flat, going), _chunks(out, coming))


def barrier(comm: Communicator) -> None:
    """MPI_Barrier."""
    comm.native.Barrier()


def _op(combine: xp.ufunc) -> Any:
    from mpi4py import MPI

    ops = {"add": MPI.SUM, "multiply": MPI.PROD, "maximum": MPI.MAX, "minimum": MPI.MIN}
    return ops[combine.__name__]


def _in_place() -> Any:
    from mpi4py import MPI

    return MPI.IN_PLACE


def _bytes(flat: xp.ndarray) -> list[Any]:
    from mpi4py import MPI

    if flat.nbytes >= 1 << 31 and MPI.Get_version() < (4, 0):
        raise MpiError(
            f"{flat.nbytes:,} bytes: this library's own collectives count in 32 bits: "
            "use algorithm='auto'"
        )
    return [flat.view(xp.uint8), MPI.BYTE]


def _chunks(flat: xp.ndarray, bounds: Bounds) -> list[Any]:
    width = flat.itemsize
    counts = [(b - a) * width for a, b in bounds]
    buffer, kind = _bytes(flat)
    return [buffer, counts, [a * width for a, _ in bounds], kind]
