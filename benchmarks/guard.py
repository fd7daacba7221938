"""What the guard costs: collectives with MINIDIST_DEBUG=1 beside the same without, on real ranks.

In debug mode every rank sends every other its fingerprint (1 KiB) before a collective, notes on the
board what it is in, and looks at the clock while it waits.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from minidist import comm as c

CASES = {
    "barrier": lambda comm, x: c.barrier(comm),
    "all_reduce 1 KiB": lambda comm, x: c.all_reduce(comm, x[:256], out=x[:256]),
    "all_reduce 1 MiB": lambda comm, x: c.all_reduce(comm, x[: 1 << 18], out=x[: 1 << 18]),
    "all_reduce 16 MiB": lambda comm, x: c.all_reduce(comm, x, out=x),
    "send and recv 8 bytes": lambda comm, x: ring(comm, x[:2]),
}


def ring(comm, x):
    comm.sendrecv(x, (comm.rank + 1) % comm.size, x.copy(), (comm.rank - 1) % comm.size)


def measure(comm):
    """Median seconds a call of each case."""
    x, found = np.zeros(1 << 22, np.float32), {}
    for name, run in CASES.items():
        repeats, times = 5 if "MiB" in name else 200, []
        for _ in range(9):
            start = time.perf_counter()
            for _ in range(repeats):
                run(comm, x)
            times.append((time.perf_counter() - start) / repeats)
        found[name] = statistics.median(times)
    return found


def on_ranks(n, debug):
    mpirun = Path(sys.executable).with_name("mpirun")
    command = [str(mpirun), "-n", str(n), sys.executable, __file__, "--rank"]
    env = {**os.environ, "MINIDIST_DEBUG": debug}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=env)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rank", action="store_true", help="this process is one of mpirun's")
    args = parser.parse_args()
    if args.rank:
        comm = c.mpi_world()
        found = measure(comm)
        if comm.rank == 0:
            print(json.dumps(found), flush=True)
        return
    for n in args.ranks:
        without, guarded = on_ranks(n, "0"), on_ranks(n, "1")
        print(f"\n{n} ranks on {os.cpu_count()} cores{'without':>16}{'guarded':>12}{'adds':>12}")
        for name in CASES:
            a, b = 1e6 * without[name], 1e6 * guarded[name]
            print(f"{name:<24}{a:10.1f} µs{b:9.1f} µs{b - a:9.1f} µs")


if __name__ == "__main__":
    main()
