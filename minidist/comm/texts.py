"""Bytes of any length from every rank to every rank, and lines on the screen in rank order."""

from itertools import accumulate, pairwise

import numpy as np

from .collectives import all_gather
from .communicator import Communicator


def share(comm: Communicator, mine: bytes) -> list[bytes]:
    """Everyone's bytes, in rank order."""
    lengths = all_gather(comm, np.array([len(mine)]), counts=[1] * comm.size).tolist()
    joined = all_gather(comm, np.frombuffer(mine, np.uint8), counts=lengths).tobytes()
    return [joined[a:b] for a, b in pairwise(accumulate(lengths, initial=0))]


def print_in_order(comm: Communicator, text: str) -> None:
    """Rank 0 prints everyone's text in rank order, which prints of many processes do not keep."""
    texts = share(comm, text.encode())
    if comm.rank == 0:
        print("\n".join(t.decode() for t in texts if t), flush=True)
