"""One rank fails while the others wait for it: `raise`, `exit`, or all agree to stop."""

import sys

import numpy as np

from minidist.comm import AgreedExit, abort_on_error, agree, mpi_world

comm = mpi_world()
sys.stdout.write("begun\n")


def wait_for_ever():
    comm.recv(np.empty(1), (comm.rank + 1) % comm.size)


def main(how):
    if how == "agree":
        error = agree(comm, "train.txt is empty" if comm.rank == 1 else None)
        if error is not None:
            sys.stderr.write(error + "\n")
            raise AgreedExit(2)
    if how == "exit" and comm.rank == 1:
        sys.exit(3)
    if how == "raise" and comm.rank == 2:
        raise KeyError("lost shard")
    wait_for_ever()


if sys.argv[1] == "raise":
    main("raise")
with abort_on_error(comm):
    main(sys.argv[1])
