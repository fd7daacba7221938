"""Programs that hang, and one that only waits long: `python comm_waits.py WAY`, without debug."""

import os
import signal
import sys
import time

import numpy as np

from minidist import comm as c

x = np.ones(4)


def mixed(comm):
    c.barrier(comm) if comm.rank == 0 else c.all_reduce(comm, x)


def ring(comm):
    big, size = np.zeros(1 << 20), comm.size
    comm.send(big, (comm.rank + 1) % size)
    comm.recv(big, (comm.rank - 1) % size)


def split(comm):
    comm.split(0) if comm.rank == 0 else c.barrier(comm)


def native(comm):
    c.barrier(comm, algorithm="native" if comm.rank == 0 else "auto")


def inside(comm):
    """All ranks wait inside the library."""
    how = "native"
    c.barrier(comm, how) if comm.rank == 0 else c.broadcast(comm, x, root=0, algorithm=how)


def beside(comm):
    c.iall_reduce(comm, x).wait() if comm.rank == 0 else c.barrier(comm)


def stopped(comm):
    if comm.rank == 0:
        os.kill(os.getpid(), signal.SIGSTOP)
    c.barrier(comm)


def saves(comm):
    """Rank 0 is busy for longer than the deadline, while the others wait: twice in one call."""
    for _ in range(2):
        if comm.rank == 0:
            time.sleep(1.5)
        for _ in range(2):
            c.barrier(comm)
    sys.stdout.write("fine\n")


c.launch(globals()[sys.argv[1]], timeout=float(sys.argv[2]) if len(sys.argv) > 2 else None)
