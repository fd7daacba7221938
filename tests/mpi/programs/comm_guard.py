"""Ranks that do not do the same: each writes what the guard told it to FOLDER/RANK.txt.

With several ways, `shape,dtype`, they follow each other, and each writes to FOLDER/WAY/RANK.txt.
"""

import os
import signal
import sys
import time
from pathlib import Path

import numpy as np

from minidist import comm as c
from minidist.comm import CommError, mpi_world

ways, folder = sys.argv[1].split(","), Path(sys.argv[2])
comm = mpi_world()
rank, odd, x = comm.rank, comm.rank == 2, np.ones(4)
pair = comm.split(rank // 2)
c.barrier(comm, label="start")


def number():
    comm.numbers += odd
    try:
        c.all_reduce(comm, x)
    finally:
        comm.numbers -= odd


def stays_away():
    if odd:
        comm.recv(x, 1)
    c.all_reduce(comm, x, label="grad/w1")


def ends(act):
    if odd:
        act()
    c.all_reduce(comm, x, label="grad/w1")


def beside():
    going = c.iall_reduce(comm, x if odd else x[:2])
    return going.wait()


def another_line():
    if odd:
        return c.all_reduce(comm, x)
    return c.all_reduce(comm, x)


DIFFERENT = {
    "operation": lambda: c.barrier(comm) if odd else c.all_reduce(comm, x),
    "dtype": lambda: c.all_reduce(comm, x.astype("f4") if odd else x),
    "shape": lambda: c.all_reduce(comm, x[:3] if odd else x),
    "rest": lambda: c.all_gather(comm, np.ones((rank, 2 + odd))),
    "reduction": lambda: c.all_reduce(comm, x, "max" if odd else "sum"),
    "root": lambda: c.broadcast(comm, x, root=int(odd)),
    "counts": lambda: c.reduce_scatter(comm, x, counts=[0, 0, 4, 0] if odd else [1, 1, 1, 1]),
    "algorithm": lambda: c.all_reduce(comm, x, algorithm="ring" if odd else "tree"),
    "group": lambda: c.all_reduce(pair if odd else comm, x),
    "number": number,
    "beside": beside,
    "another_line": another_line,
    "stays_away": stays_away,
    "exits": lambda: ends(lambda: sys.exit(0)),
    "fails": lambda: ends(lambda: sys.exit(3)),
    "stopped": lambda: ends(lambda: os.kill(os.getpid(), signal.SIGSTOP)),
    "killed": lambda: ends(lambda: os.kill(os.getpid(), signal.SIGKILL)),
}

for how in ways:
    try:
        DIFFERENT[how]()
    except CommError as error:
        own = folder / how if len(ways) > 1 else folder
        (own / f"{rank}.txt").write_text(f"{type(error).__name__}: {error}")
        if how in ("stopped", "killed", "exits", "fails", "stays_away", "group"):
            time.sleep(0.5)  # the others are told too before the first error ends them all
            raise
    c.barrier(comm, label="end")
