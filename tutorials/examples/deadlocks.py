"""The four classic deadlocks, and the message that the guard prints instead of waiting for ever.

On real ranks: mpirun -n 4 python deadlocks.py. Without MPI: python deadlocks.py.
"""

import os
import time

import numpy as np

from minidist import comm as c

os.environ.setdefault("MINIDIST_DEBUG", "1")  # the ranks compare their calls
os.environ.setdefault("MINIDIST_TIMEOUT", "2")  # real ranks wait two seconds at most


def everybody_sends_first(comm: c.Communicator) -> None:
    """This works while the library buffers small messages, and hangs with the first large one."""
    comm.ssend(np.ones(4), (comm.rank + 1) % comm.size)
    comm.recv(np.empty(4), (comm.rank - 1) % comm.size)


def everybody_receives_first(comm: c.Communicator) -> None:
    """This always hangs. Let one rank send first, or use sendrecv."""
    comm.recv(np.empty(4), (comm.rank - 1) % comm.size)
    comm.send(np.ones(4), (comm.rank + 1) % comm.size)


def collectives_in_another_order(comm: c.Communicator) -> None:
    """A branch on the rank: rank 0 calls one collective, the others call another one."""
    c.barrier(comm) if comm.rank == 0 else c.all_reduce(comm, np.ones(4), label="loss")


def one_rank_stays_away(comm: c.Communicator) -> None:
    """A rank has run out of data and no longer calls the collective."""
    if comm.rank != comm.size - 1:
        c.all_reduce(comm, np.ones(4), label="gradients")
    elif comm.native is not None:
        time.sleep(3)


def main() -> None:
    world = c.mpi_world() if c.world_from_env()[1] > 1 else None
    for program in (everybody_sends_first, everybody_receives_first, collectives_in_another_order,
                    one_rank_stays_away):  # fmt: skip
        try:
            # A new communicator for each program: unfinished messages of one cannot meet the next.
            program(world.split(0)) if world else c.simulate(program, 4)
            message = "no deadlock"
        except c.CommError as error:
            message = f"{type(error).__name__}: {error}"
            if world:
                time.sleep(1)  # the others, whose time is up soon, say what this rank waits for
        if world is None or world.rank == 0:
            print(f"\n{program.__name__}: {program.__doc__}\n{message}", flush=True)


if __name__ == "__main__":
    main()
