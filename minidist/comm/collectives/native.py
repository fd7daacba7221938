"""Helpers of algorithm="native", the MPI library's own collectives.

The last algorithm in each collective's file is `native`: one call of mpi4py. It is fast, and the
library is free to choose the order of summation. This file checks whether the library can do it,
and describes buffers to mpi4py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from ...kernels import arrays as xp
from ..communicator import Communicator
from ..errors import MpiError
from .chunks import Bounds

ARITHMETIC = ("sum", "prod", "mean")  # the operations that MPI knows for complex numbers


def check(comm: Communicator, array: xp.ndarray | None = None, op: str = "") -> None:
    """Refuse it without an MPI library, and for a dtype that the library cannot reduce."""
    if comm.prefix:
        raise ValueError("what goes on beside others is written by hand: use algorithm='auto'")
    if comm.native is None:
        raise MpiError("simulated ranks have no MPI library: use algorithm='auto'")
    if op and array is not None:
        kind, width = array.dtype.kind, array.dtype.itemsize
        known = kind in "iu" or (kind == "f" and width > 2) or (kind == "c" and op in ARITHMETIC)
        if not known or not array.dtype.isnative:
            raise MpiError(f"MPI has no {op} of {array.dtype}: use algorithm='auto'")


def native_call(comm: Any, name: str, *buffers: Any, **options: Any) -> None:
    """Call one of the MPI library's own collectives, which blocks inside the library."""
    comm.process.enter_library(comm, f"MPI's {name}")
    try:
        getattr(comm.native, name)(*buffers, **options)
    finally:
        comm.process.leave_library()


def mpi_op(combine: xp.ufunc, dtype: xp.dtype) -> Any:
    """MPI.SUM for np.add, and so on; for floats np.maximum itself, because MPI.MAX drops NaN."""
    from mpi4py import MPI

    if dtype.kind == "f" and combine.__name__ in ("maximum", "minimum"):
        return _own_op(combine.__name__, dtype)
    ops = {"add": MPI.SUM, "multiply": MPI.PROD, "maximum": MPI.MAX, "minimum": MPI.MIN}
    return ops[combine.__name__]


@cache
def _own_op(name: str, dtype: xp.dtype) -> Any:
    """An MPI operation that calls NumPy's function of that name. It is never freed."""
    from mpi4py import MPI

    combine = getattr(np, name)

    def call(theirs: Any, mine: Any, _: Any) -> None:
        mine = np.frombuffer(mine, dtype)
        combine(np.frombuffer(theirs, dtype), mine, out=mine)

    return MPI.Op.Create(call, commute=True)


def in_place() -> Any:
    """MPI.IN_PLACE: the receive buffer is also the send buffer."""
    from mpi4py import MPI

    return MPI.IN_PLACE


def as_bytes(flat: xp.ndarray) -> list[Any]:
    """A buffer as mpi4py takes it, as bytes: so MPI carries every dtype."""
    from mpi4py import MPI

    if flat.nbytes >= 1 << 31 and MPI.Get_version() < (4, 0):
        raise MpiError(
            f"{flat.nbytes:,} bytes: this library's own collectives count in 32 bits: "
            "use algorithm='auto'"
        )
    return [flat.view(xp.uint8), MPI.BYTE]


def chunks_as_bytes(flat: xp.ndarray, bounds: Bounds) -> list[Any]:
    """A buffer with the byte counts and offsets of its chunks, for the v-forms of MPI."""
    width = flat.itemsize
    counts = [(b - a) * width for a, b in bounds]
    buffer, kind = as_bytes(flat)
    return [buffer, counts, [a * width for a, _ in bounds], kind]
