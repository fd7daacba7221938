"""The MPI library's own all-reduce: fast, and free to choose an order of summation."""

import numpy as np

from ..communicator import Communicator
from ..errors import MpiError

ARITHMETIC = ("sum", "prod", "mean")


def check(comm: Communicator, array: np.ndarray, op: str) -> None:
    """Raise where there is no MPI library, or none that knows this dtype."""
    if comm.native is None:
        raise MpiError("simulated ranks have no MPI library: use algorithm='ring'")
    kind, width = array.dtype.kind, array.dtype.itemsize
    known = kind in "iu" or (kind == "f" and width > 2) or (kind == "c" and op in ARITHMETIC)
    if not known or not array.dtype.isnative:
        raise MpiError(f"MPI has no {op} of {array.dtype}: use algorithm='ring'")


def all_reduce_flat(comm: Communicator, flat: np.ndarray, combine: np.ufunc) -> None:
    """All-reduce in place, by MPI_Allreduce."""
    from mpi4py import MPI

    ops = {"add": MPI.SUM, "multiply": MPI.PROD, "maximum": MPI.MAX, "minimum": MPI.MIN}
    comm.native.Allreduce(MPI.IN_PLACE, flat, op=ops[combine.__name__])
