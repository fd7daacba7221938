"""Barrier by dissemination: after round k a rank has heard of 2^(k+1) ranks."""

import numpy as np

from ..communicator import Communicator
from . import tags


def barrier(comm: Communicator) -> None:
    """Return only when every rank has called it; log2(n) rounds of empty messages."""
    nothing = np.empty(0, np.uint8)
    distance = 1
    while distance < comm.size:
        ahead, behind = (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size
        comm.sendrecv(nothing, ahead, nothing, behind, tags.BARRIER)
        distance *= 2
