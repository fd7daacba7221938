"""Collectives written by hand compared with MPI's own on real ranks, and with the α-β prediction.

`python benchmarks/collectives.py` starts mpirun for each number of ranks. `--collective all` shows
all of them, `--plot FILE` draws time against size. Bus bandwidth is what each link carries, as in
nccl-tests. α and β are fitted to ping-pong between ranks 0 and 1 in the same run, and γ to an
addition in memory, so a collective's prediction comes from its formula alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import numpy as np

from minidist import comm as c
from minidist.comm.collectives import auto, chunks
from minidist.plan.collectives import coefficients

SIZES = [1 << k for k in range(10, 27, 2)]  # bytes of the whole: 1 KiB to 64 MiB
COLLECTIVES = (
    "all_reduce", "broadcast", "reduce", "scatter", "gather", "all_gather", "reduce_scatter",
    "scan", "all_to_all",
)  # fmt: skip
TABLES = {n: import_module(f"minidist.comm.collectives.{n}").ALGORITHMS for n in COLLECTIVES}


def call(comm, collective, nbytes, algorithm):
    """A function that makes the call once; `nbytes` is the whole buffer, as in nccl-tests."""
    n, x = comm.size, np.zeros(nbytes // 4, np.float32)
    part, counts = x[: x.size // n].copy(), [x.size // n] * n
    return {
        "all_reduce": lambda: c.all_reduce(comm, x, algorithm=algorithm, out=x),
        "broadcast": lambda: c.broadcast(comm, x, 0, algorithm),
        "reduce": lambda: c.reduce(comm, x, 0, "sum", algorithm),
        "scatter": lambda: c.scatter(comm, x if comm.rank == 0 else None, 0, None, algorithm),
        "gather": lambda: c.gather(comm, part, 0, counts, algorithm),
        "all_gather": lambda: c.all_gather(comm, part, counts, algorithm),
        "reduce_scatter": lambda: c.reduce_scatter(comm, x, "sum", algorithm),
        "all_to_all": lambda: c.all_to_all(comm, x, None, counts, algorithm),
        "scan": lambda: c.scan(comm, x, "sum", algorithm),
    }[collective]


def seconds(comm, run, repeats):
    """Seconds a call, from a barrier to the last rank's return."""
    c.barrier(comm)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    mine = np.array([(time.perf_counter() - start) / repeats])
    return float(c.all_reduce(comm, mine, "max")[0])


def there_and_back(comm, nbytes):
    """A message from rank 0 to 1 and back; the other ranks do nothing."""
    ball = np.zeros(nbytes, np.uint8)
    if comm.rank > 1:
        return lambda: None
    if comm.rank == 0:
        return lambda: (comm.send(ball, 1), comm.recv(ball, 1))
    return lambda: (comm.recv(ball, 0), comm.send(ball, 0))


def constants(comm):
    """(α, β, γ a byte) measured now: a fit to ping-pong, and an addition of 16 MiB."""
    times, sizes = [], [1 << k for k in range(6, 25, 2)]
    for nbytes in sizes:
        once, rounds = there_and_back(comm, nbytes), max(5, min(200, (1 << 22) // nbytes))
        times.append(statistics.median(seconds(comm, once, rounds) for _ in range(5)) / 2)
    t, n = np.array(times), np.array(sizes)
    (alpha, beta), *_ = np.linalg.lstsq(np.stack([1 / t, n / t], 1), np.ones(len(t)))
    a, b = np.zeros(1 << 22, np.float32), np.ones(1 << 22, np.float32)
    add = statistics.median(seconds(comm, lambda: np.add(a, b, out=a), 3) for _ in range(5))
    return alpha, beta, add / a.nbytes


def predicted(collective, algorithm, n, nbytes, alpha, beta, gamma):
    segments = max(1, -(-nbytes // chunks.SEGMENT))
    a, b, g = coefficients(collective, algorithm, n, segments)
    return a * alpha + b * nbytes * beta + g * nbytes * gamma


def measure(comm, collectives, rounds):
    """Rows for JSON: the median seconds of each algorithm, measured in turns, and predictions."""
    alpha, beta, gamma = constants(comm)
    for collective in collectives:
        names = list(TABLES[collective])
        for nbytes in SIZES:
            repeats = max(1, min(100, (1 << 22) // nbytes))
            calls = [call(comm, collective, nbytes, name) for name in names]
            runs = [[seconds(comm, run, repeats) for run in calls] for _ in range(rounds)]
            times = dict(zip(names, (statistics.median(t) for t in zip(*runs[1:]))))
            model = {
                name: predicted(collective, name, comm.size, nbytes, alpha, beta, gamma)
                for name in names if name != "native"
            }  # fmt: skip
            yield {"collective": collective, "ranks": comm.size, "bytes": nbytes, "seconds": times,
                   "predicted": model, "constants": [alpha, beta, gamma]}  # fmt: skip


def show(row):
    n, nbytes, times = row["ranks"], row["bytes"], row["seconds"]
    names = list(times)
    if nbytes == SIZES[0]:
        alpha, beta, gamma = row["constants"]
        print(f"\n{row['collective']}, {n} ranks on {os.cpu_count()} cores: GB/s on the bus, best "
              f"of ours / MPI's own, time of auto's choice / predicted (α = {1e6 * alpha:.1f} µs, "
              f"β = {1e9 * beta:.3f} ns, γ = {1e9 * gamma:.3f} ns a byte)")  # fmt: skip
        print(f"{'bytes':>11}" + "".join(f"{a:>13}" for a in names) + "  best/native  /predicted")
    bus = c.bus_bandwidth if row["collective"] != "scan" else lambda _, b, n, t: b / t
    rates = [bus(row["collective"], nbytes, n, t) / 1e9 for t in times.values()]
    chosen = auto.choose(row["collective"], "auto", n, nbytes)
    print(f"{nbytes:11,}" + "".join(f"{r:13.3f}" for r in rates)
          + f"{max(rates[:-1]) / rates[-1]:13.2f}"
          + f"{times[chosen] / row['predicted'][chosen]:12.2f}", flush=True)  # fmt: skip


def draw(rows, path):
    """Time against size: points measured, lines predicted, MPI's own in black."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    rows = [r for r in rows if r["collective"] == "all_reduce"]
    ranks = sorted({r["ranks"] for r in rows})
    figure, panes = plt.subplots(1, len(ranks), figsize=(5.5 * len(ranks), 4.2), sharey=True,
                                 squeeze=False)  # fmt: skip
    for n, pane in zip(ranks, panes[0]):
        mine = [r for r in rows if r["ranks"] == n]
        sizes = [r["bytes"] for r in mine]
        for k, name in enumerate(("ring", "doubling", "rabenseifner", "tree")):
            pane.loglog(sizes, [r["seconds"][name] for r in mine], "o", color=f"C{k}", label=name)
            pane.loglog(sizes, [r["predicted"][name] for r in mine], "-", color=f"C{k}", lw=0.8)
        pane.loglog(sizes, [r["seconds"]["native"] for r in mine], "k^--", label="MPI's own")
        pane.set(title=f"all-reduce, {n} ranks on {os.cpu_count()} cores", xlabel="bytes")
        pane.grid(alpha=0.3)
    panes[0][0].set_ylabel("seconds (lines: α-β-γ prediction)")
    panes[0][0].legend()
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--collective", default="all_reduce", choices=["all", *TABLES])
    parser.add_argument("--rounds", type=int, default=7, help="measurements, the first not counted")
    parser.add_argument("--plot", type=Path, help="where to draw all-reduce")
    parser.add_argument("--rank", action="store_true", help="this process is one of mpirun's")
    args = parser.parse_args()
    if args.rank:
        comm = c.mpi_world()
        for row in measure(comm, list(TABLES) if args.collective == "all" else [args.collective],
                           args.rounds):  # fmt: skip
            if comm.rank == 0:
                print(json.dumps(row), flush=True)
        return
    rows, mpirun = [], Path(sys.executable).with_name("mpirun")
    for n in args.ranks:
        command = [str(mpirun), "-n", str(n), sys.executable, __file__, "--rank"]
        command += ["--rounds", str(args.rounds), "--collective", args.collective]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as job:
            for line in job.stdout:
                rows.append(json.loads(line))
                show(rows[-1])
        if job.returncode:
            raise SystemExit(job.returncode)
    if args.plot:
        draw(rows, args.plot)


if __name__ == "__main__":
    main()
