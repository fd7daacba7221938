"""The obvious all-reduce: rank 0 receives everything, adds in rank order, sends it back."""

from ...kernels import arrays as xp
from ..communicator import Communicator
from . import tags
from .tree import broadcast_flat


def all_reduce_flat(comm: Communicator, flat: xp.ndarray, combine: xp.ufunc) -> None:
    """All-reduce in place; rank 0 carries all the traffic, the others look on."""
    if comm.rank == 0:
        theirs = xp.empty_like(flat)
        for source in range(1, comm.size):
            combine(flat, comm.recv(theirs, source, tags.GATHER), out=flat)
    else:
        comm.send(flat, 0, tags.GATHER)
    broadcast_flat(comm, flat)
