"""What only real ranks have: the library's all-reduce, one BLAS thread, Status, the launcher."""

import sys

import numpy as np
import threadpoolctl

from minidist.comm import (
    MismatchError,
    MpiError,
    all_reduce,
    barrier,
    mpi_world,
    world_from_env,
)

guess = world_from_env()
comm = mpi_world()
assert guess == (comm.rank, comm.size), guess
assert mpi_world() is comm


def refuses(error, text, call):
    try:
        call()
    except error as caught:
        assert text in str(caught), str(caught)
    else:
        raise AssertionError(f"no {error.__name__}")


for op, expected in [("sum", 10), ("max", 4), ("min", 1), ("prod", 24)]:
    mine = np.full((3, 4), comm.rank + 1)
    for algorithm in ("ring", "naive", "native"):
        for array in (mine, mine[:, ::2]):
            result = all_reduce(comm, array, op, algorithm)
            assert (result == expected).all() and result.shape == array.shape, (op, algorithm)
refuses(MpiError, "ring", lambda: all_reduce(comm, np.ones(3, np.float16), "sum", "native"))

partner = comm.rank ^ 1
for out in (np.zeros(5, np.float32), np.zeros(2, np.float32), np.zeros(3, np.float64)):
    sending = comm.isend(np.ones(3, np.float32), partner)
    text = f"rank {comm.rank} recv(source={partner}, tag=0): `out` is {out.dtype} {out.shape}"
    refuses(MismatchError, text, lambda out=out: comm.recv(out, partner))
    sending.wait()

for size in (10, 300_000):  # nobody keeps these requests or their arrays
    receiving = comm.irecv(np.zeros(size), partner, tag=3)
    comm.isend(np.full(size, comm.rank) + 0.0, partner, tag=3)
    np.full(size, -1.0)
    assert (receiving.wait() == partner).all()
    assert (receiving.wait() == partner).all()

blas = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
assert set(blas) <= {1}, blas
barrier(comm)
sys.stdout.write(f"rank {comm.rank} is fine\n")
