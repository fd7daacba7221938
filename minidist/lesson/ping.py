"""A token round all ranks and back, timed: run with mpirun -n 4 python -m minidist.lesson.ping."""

import time

import numpy as np

from ..comm import Communicator, barrier, mpi_world

ROUNDS = 200


def seconds_a_hop(comm: Communicator) -> float:
    """Time of one message from a rank to its neighbour, the mean over ROUNDS rounds."""
    token, right, left = np.zeros(1), (comm.rank + 1) % comm.size, (comm.rank - 1) % comm.size
    barrier(comm)
    start = time.perf_counter()
    for _ in range(ROUNDS):
        if comm.rank == 0:
            comm.send(token, right)
            comm.recv(token, left)
        else:
            comm.recv(token, left)
            token += 1
            comm.send(token, right)
    assert comm.rank or token[0] == ROUNDS * (comm.size - 1), f"the token came back as {token}"
    return (time.perf_counter() - start) / (ROUNDS * comm.size)


def main() -> None:
    comm = mpi_world()
    seconds = seconds_a_hop(comm)
    if comm.rank == 0:
        print(f"{comm.size} ranks, {1e6 * seconds:.1f} µs a message of 8 bytes")


if __name__ == "__main__":
    main()
