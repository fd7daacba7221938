"""The four classic deadlocks, and what the guard says to each instead of waiting for ever.

On real ranks: mpirun -n 4 python deadlocks.py. Without MPI: python deadlocks.py.
"""

import os
import time

import numpy as np

from minidist import comm as c

os.environ.setdefault("MINIDIST_DEBUG", "1")  # compare what ranks call
os.environ.setdefault("MINIDIST_TIMEOUT", "2")  # and on real ranks, wait two seconds at most


def everybody_sends_first(comm: c.Communicator) -> None:
    """It works while the library buffers small messages, and hangs with the first large one."""
    comm.ssend(np.ones(4), (comm.rank + 1) % comm.size)
    comm.recv(np.empty(4), (comm.rank - 1) % comm.size)


def everybody_receives_first(comm: c.Communicator) -> None:
    """It hangs always. One rank that sends first, or sendrecv, resolves both."""
    comm.recv(np.empty(4), (comm.rank - 1) % comm.size)
    comm.send(np.ones(4), (comm.rank + 1) % comm.size)


def collectives_in_another_order(comm: c.Communicator) -> None:
    """A branch on the rank around collectives: rank 0 is in one, the others are in the next."""
    c.barrier(comm) if comm.rank == 0 else c.all_reduce(comm, np.ones(4), label="loss")


def one_rank_stays_away(comm: c.Communicator) -> None:
    """A rank has run out of data and does not take part any more."""
    if comm.rank != comm.size - 1:
        c.all_reduce(comm, np.ones(4), label="gradients")
    elif comm.native is not None:
        time.sleep(3)


def main() -> None:
    world = c.mpi_world() if c.world_from_env()[1] > 1 else None
    for program in (everybody_sends_first, everybody_receives_first, collectives_in_another_order,
                    one_rank_stays_away):  # fmt: skip
        try:
            # Each on a communicator of its own: what is left of one does not meet the next.
            program(world.split(0)) if world else c.simulate(program, 4)
            said = "nothing: it did not wait"
        except c.CommError as error:
            said = f"{type(error).__name__}: {error}"
        if world is None or world.rank == 0:
            print(f"\n{program.__name__}: {program.__doc__}\n{said}", flush=True)


if __name__ == "__main__":
    main()
