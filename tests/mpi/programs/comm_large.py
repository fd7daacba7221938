"""Messages of more than 2 GiB, beyond what a 32-bit count holds, between two ranks."""

import numpy as np

from minidist.comm import MpiError, all_gather, broadcast, mpi_world

comm = mpi_world()
other, numbers = 1 - comm.rank, (1 << 31) + 4096  # bytes
mine = np.zeros(numbers, np.uint8)
mine[::4096], mine[-1] = comm.rank + 1, 7 + comm.rank
out = np.empty(numbers, np.uint8)
comm.sendrecv(mine, other, out, other)
assert (out[::4096] == other + 1).all() and out[-1] == 7 + other and not out[1:4096].any()
broadcast(comm, out, root=0, algorithm="tree")
assert (out[::4096] == 2).all() and out[-1] == 8, "rank 0 had rank 1's"
del out
half = mine[: numbers // 2]
for algorithm in ("ring", "native"):
    try:
        whole = all_gather(comm, half, [half.size] * 2, algorithm)
    except MpiError as error:
        assert algorithm == "native" and "use algorithm='auto'" in str(error), error
        continue
    assert whole.size == 2 * half.size and whole[0] == 1 and whole[half.size] == 2
    assert (whole[: half.size : 4096] == 1).all() and (whole[half.size :: 4096] == 2).all()
    del whole
