"""What only real ranks have: the library's all-reduce, one BLAS thread, Status, the launcher."""

import sys

import numpy as np
import threadpoolctl

from minidist import comm as c
from minidist.comm import MismatchError, MpiError, all_reduce, barrier, mpi_world, world_from_env
from minidist.comm.mpi import messages

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
rows = np.arange(22.0).reshape(11, 2) + 100 * comm.rank
whole = rows if comm.rank == 1 else None
counts = [(comm.rank + k) % 3 for k in range(comm.size)]
part = rows[: sum(counts)]
for name, call in {
    "broadcast": lambda **how: c.broadcast(comm, rows.copy(), 2, **how),
    "reduce": lambda **how: c.reduce(comm, rows, 1, "max", **how),
    "scatter": lambda **how: c.scatter(comm, whole, 1, **how),
    "gather": lambda **how: c.gather(comm, rows[: comm.rank], 1, **how),
    "all_gather": lambda **how: c.all_gather(comm, rows[: comm.rank], **how),
    "reduce_scatter": lambda **how: c.reduce_scatter(comm, rows, "mean", **how),
    "all_to_all": lambda **how: c.all_to_all(comm, part, counts, **how),
    "scan": lambda **how: c.scan(comm, rows, **how),
    "barrier": lambda **how: c.barrier(comm, **how),
}.items():
    ours, theirs = call(), call(algorithm="native")
    assert (ours is None) == (theirs is None), name
    assert ours is None or (ours.shape == theirs.shape and (ours == theirs).all()), name
refuses(ValueError, "written by hand", lambda: c.iall_reduce(comm, rows, algorithm="native"))
refuses(MpiError, "auto", lambda: all_reduce(comm, np.ones(3, np.float16), "sum", "native"))

spoiled = np.array([1.0, np.nan if comm.rank == 1 else 2.0, comm.rank], np.float32)
for op in ("max", "min"):  # MPI's own drops NaN
    for call in (all_reduce, c.scan, lambda *how: c.reduce(how[0], how[1], 1, *how[2:])):
        ours, theirs = call(comm, spoiled, op, "auto"), call(comm, spoiled, op, "native")
        assert ours is None or np.array_equal(ours, theirs, equal_nan=True), (op, ours, theirs)
assert np.isnan(all_reduce(comm, spoiled, "max", "native")[1])

partner = comm.rank ^ 1
for out in (np.zeros(5, np.float32), np.zeros(2, np.float32), np.zeros(3, np.float64)):
    sending = comm.isend(np.ones(3, np.float32), partner)
    text = f"`out` is {out.dtype} {out.shape}"
    refuses(MismatchError, text, lambda out=out: comm.recv(out, partner))
    sending.wait()

short = np.zeros(2, np.float32)  # of a message of three: said also to who only asks
sending, asking = comm.isend(np.ones(3, np.float32), partner), comm.irecv(short, partner)
refuses(MismatchError, "float32 (2,)", lambda: [asking.is_completed() for _ in range(1 << 20)])
sending.wait()

for size in (10, 300_000):  # nobody keeps these requests or their arrays
    receiving = comm.irecv(np.zeros(size), partner, tag=3)
    comm.isend(np.full(size, comm.rank) + 0.0, partner, tag=3)
    np.full(size, -1.0)
    assert (receiving.wait() == partner).all()
    assert (receiving.wait() == partner).all()

messages.PART = 1000  # a message in several parts
whole = np.arange(5000) % 7 + comm.rank
for long in (whole, whole[:125], whole[:250]):
    out = comm.sendrecv(long, partner, np.zeros(long.size, int), partner)
    assert (out == long - comm.rank + partner).all()
requests = [comm.isend(whole, partner), comm.irecv(np.zeros(5000, int), partner)]
while not all(r.is_completed() for r in requests):
    pass
for size in (4999, 5001, 5200):
    sending = comm.isend(whole, partner)
    refuses(MismatchError, f"int64 ({size},)", lambda n=size: comm.recv(np.zeros(n, int), partner))
    sending.wait()

blas = [lib["num_threads"] for lib in threadpoolctl.threadpool_info() if lib["user_api"] == "blas"]
assert set(blas) <= {1}, blas
barrier(comm)
sys.stdout.write(f"rank {comm.rank} is fine\n")
