"""All-reduce written by hand beside MPI's own: bus bandwidth by size, 2 and 4 ranks, one run.

`python benchmarks/collectives.py` starts mpirun for each number of ranks. Bus bandwidth is
2(n-1)/n · S / t (nccl-tests' convention): what each link carries, whatever the number of ranks.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from minidist.comm import all_reduce, barrier, mpi_world

ALGORITHMS = ("ring", "doubling", "rabenseifner", "tree", "native")
SIZES = [1 << k for k in range(10, 27, 2)]  # bytes: 1 KiB to 64 MiB


def once(comm, x, algorithm, repeats):
    """Seconds a call, from a barrier to the last rank's return."""
    barrier(comm)
    start = time.perf_counter()
    for _ in range(repeats):
        all_reduce(comm, x, algorithm=algorithm, out=x)
    mine = np.array([(time.perf_counter() - start) / repeats])
    return float(all_reduce(comm, mine, "max")[0])


def table(comm, rounds):
    """Rows of (bytes, median seconds of each algorithm), measured in turns."""
    for nbytes in SIZES:
        x = np.zeros(nbytes // 4, np.float32)
        repeats = max(1, min(200, (1 << 22) // nbytes))
        runs = [[once(comm, x, a, repeats) for a in ALGORITHMS] for _ in range(rounds)]
        yield nbytes, [statistics.median(times) for times in zip(*runs[1:])]


def show(comm, rounds):
    bus = 2 * (comm.size - 1) / comm.size
    if comm.rank == 0:
        print(f"{comm.size} ranks on {os.cpu_count()} cores: GB/s on the bus, and the best of ours "
              "beside MPI's own")  # fmt: skip
        print(f"{'bytes':>11}" + "".join(f"{a:>14}" for a in ALGORITHMS) + f"{'best/native':>13}")
    for nbytes, times in table(comm, rounds):
        rates = [bus * nbytes / t / 1e9 for t in times]
        if comm.rank == 0:
            best = max(rates[:-1]) / rates[-1]
            print(
                f"{nbytes:11,}" + "".join(f"{r:14.3f}" for r in rates) + f"{best:13.2f}", flush=True
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=7, help="measurements, the first not counted")
    parser.add_argument("--rank", action="store_true", help="this process is one of mpirun's")
    args = parser.parse_args()
    if args.rank:
        show(mpi_world(), args.rounds)
        return
    mpirun = Path(sys.executable).with_name("mpirun")
    for n in args.ranks:
        command = [str(mpirun), "-n", str(n), sys.executable, __file__, "--rank"]
        subprocess.run([*command, "--rounds", str(args.rounds)], check=True)


if __name__ == "__main__":
    main()
