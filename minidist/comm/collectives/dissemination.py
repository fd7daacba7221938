"""Barrier by dissemination: after round k a rank has heard of 2^(k+1) ranks."""

from __future__ import annotations

import numpy as np

from ..communicator import Communicator
from . import native, tags
from .auto import choose
from .checks import check_known


def barrier(comm: Communicator, algorithm: str = "auto", label: str = "") -> None:
    """Return only when every rank has called it: dissemination or native."""
    check_known(f"rank {comm.rank} barrier", "algorithm", algorithm, ["auto", *ALGORITHMS])
    if algorithm == "native":
        native.check(comm)
    with comm.collective("barrier", label=label, algorithm=algorithm):
        ALGORITHMS[choose("barrier", algorithm, comm.size, 0)](comm)


def disseminate(comm: Communicator) -> None:
    """log2(n) rounds of empty messages, to the rank 1, 2, 4, … ahead."""
    nothing = np.empty(0, np.uint8)
    distance = 1
    while distance < comm.size:
        ahead, behind = (comm.rank + distance) % comm.size, (comm.rank - distance) % comm.size
        comm.sendrecv(nothing, ahead, nothing, behind, tags.BARRIER)
        distance *= 2


ALGORITHMS = {"dissemination": disseminate, "native": native.barrier}
