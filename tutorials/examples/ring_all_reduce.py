"""The ring all-reduce, a step at a time: the sum that every rank has in each of its chunks.

First each chunk goes round the ring and every rank adds its part (reduce-scatter). Then the
finished sums go round (all-gather).
On real ranks: mpirun -n 4 python ring_all_reduce.py. Without MPI: python ring_all_reduce.py.
"""

import numpy as np

from minidist.comm import Communicator, Ledger, all_reduce, launch, print_in_order

LETTERS = "abcdefgh"


def show(comm: Communicator, title: str, letters: list[str]) -> None:
    cells = " ".join(f"{text:^{2 * comm.size + 1}}" for text in letters)
    print_in_order(
        comm, (f"\n{title}\n" if comm.rank == 0 else "") + f"  rank {comm.rank} | {cells}"
    )


def pass_on(comm: Communicator, out: np.ndarray, letters: list[str], step: int, adds: bool) -> None:
    """Send one chunk to the right neighbour; add the chunk from the left one, or copy it."""
    n, right, left = comm.size, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    sent, received = (comm.rank - step) % n, (comm.rank - step - 1) % n
    message = comm.sendrecv(out[sent], right, np.empty_like(out[received]), left)
    # For the picture, the letters of the ranks whose parts are in the chunk go along.
    text = np.zeros(8, np.uint8)
    comm.sendrecv(np.frombuffer(letters[sent].ljust(8).encode(), np.uint8), right, text, left, 1)
    theirs = text.tobytes().decode().strip()
    out[received] = out[received] + message if adds else message
    letters[received] = "".join(sorted(letters[received] + theirs)) if adds else theirs


def main(comm: Communicator) -> None:
    n = comm.size
    mine = np.arange(3.0 * n).reshape(n, 3) + 100 * comm.rank  # (n, 3): chunk k is row k
    out, letters = mine.copy(), [LETTERS[comm.rank % 8]] * n
    with Ledger(comm) as ledger:
        show(comm, "start: rank 0 has part a of every chunk, rank 1 part b, …", letters)
        for step in range(n - 1):
            pass_on(comm, out, letters, step, adds=True)
            show(comm, f"reduce-scatter, step {step + 1} of {n - 1}", letters)
        for step in range(n - 1):
            pass_on(comm, out, letters, step - 1, adds=False)
            show(comm, f"all-gather, step {step + 1} of {n - 1}", letters)
    assert (out == all_reduce(comm, mine)).all(), "minidist's all_reduce gives the same"
    sent = sum(nbytes for route, (_, nbytes) in ledger.sent.items() if not route.collective
               and route.tag == 0)  # fmt: skip
    assert sent == 2 * (n - 1) * mine.nbytes // n
    print_in_order(comm, f"rank {comm.rank} sent {sent} bytes = 2(n-1)/n · {mine.nbytes}")


if __name__ == "__main__":
    launch(main, ranks=4)
