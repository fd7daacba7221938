"""The ring all-reduce, a step at a time: what every rank holds in each of its chunks.

First each chunk goes round and is added to (reduce-scatter), then the sums go round (all-gather).
On real ranks: mpirun -n 4 python ring_all_reduce.py. Without MPI: python ring_all_reduce.py.
"""

import numpy as np

from minidist.comm import Communicator, Ledger, all_reduce, launch, print_in_order

LETTERS = "abcdefgh"


def show(comm: Communicator, title: str, held: list[str]) -> None:
    cells = " ".join(f"{text:^{2 * comm.size + 1}}" for text in held)
    print_in_order(
        comm, (f"\n{title}\n" if comm.rank == 0 else "") + f"  rank {comm.rank} | {cells}"
    )


def pass_on(comm: Communicator, out: np.ndarray, held: list[str], step: int, adds: bool) -> None:
    """One step: a chunk to the right, another from the left, added to mine or put in its place."""
    n, right, left = comm.size, (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    going, coming = (comm.rank - step) % n, (comm.rank - step - 1) % n
    arrived = comm.sendrecv(out[going], right, np.empty_like(out[coming]), left)
    letters = np.zeros(8, np.uint8)  # whose shares are in it, for the picture
    told = np.frombuffer(held[going].ljust(8).encode(), np.uint8)
    comm.sendrecv(told, right, letters, left, tag=1)
    text = letters.tobytes().decode().strip()
    out[coming] = out[coming] + arrived if adds else arrived
    held[coming] = "".join(sorted(held[coming] + text)) if adds else text


def main(comm: Communicator) -> None:
    n = comm.size
    mine = np.arange(3.0 * n).reshape(n, 3) + 100 * comm.rank  # chunk k is row k
    out, held = mine.copy(), [LETTERS[comm.rank % 8]] * n
    with Ledger(comm) as ledger:
        show(comm, "start: rank 0 holds share a of every chunk, rank 1 share b, …", held)
        for step in range(n - 1):
            pass_on(comm, out, held, step, adds=True)
            show(comm, f"reduce-scatter, step {step + 1} of {n - 1}", held)
        for step in range(n - 1):
            pass_on(comm, out, held, step - 1, adds=False)
            show(comm, f"all-gather, step {step + 1} of {n - 1}", held)
    assert (out == all_reduce(comm, mine)).all(), "the library's own gives the same"
    sent = sum(nbytes for route, (_, nbytes) in ledger.sent.items() if not route.collective
               and route.tag == 0)  # fmt: skip
    assert sent == 2 * (n - 1) * mine.nbytes // n
    print_in_order(comm, f"rank {comm.rank} sent {sent} bytes = 2(n-1)/n · {mine.nbytes}")


if __name__ == "__main__":
    launch(main, ranks=4)
