"""Output of many ranks on one screen, in rank order."""

from .collectives.all_gather import all_gather_bytes
from .communicator import Communicator


def print_in_order(comm: Communicator, text: str) -> None:
    """Rank 0 prints every rank's text in rank order: prints of many processes would mix."""
    texts = all_gather_bytes(comm, text.encode())
    if comm.rank == 0:
        print("\n".join(t.decode() for t in texts if t), flush=True)
