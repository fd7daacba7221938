"""What ZeRO saves and costs: bytes a rank holds beside the formulas, and time a step, by stage.

The GPT of benchmarks/gpt.py on real MPI ranks of this machine; all stages in one job, in turns. The
competitor is stage 0, plain data parallelism in buckets.
"""

import argparse
import functools
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

import gpt

from minidist.autograd.checkpoint import checkpoint
from minidist.comm import barrier, mpi_world
from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import AdamW
from minidist.parallel.data import Bucketed
from minidist.parallel.zero import Zero, Zero3
from minidist.parallel.zero.flat import bytes_by_use
from minidist.plan.zero import FLOAT32, zero_bytes
from minidist.tensor.tensor import Tensor


class Run:
    """A model of one stage, and its step; with `recompute` backward runs the blocks again."""

    def __init__(self, comm, stage, recompute=False):
        config = GPTConfig(gpt.LAYERS, gpt.HIDDEN, gpt.HEADS, gpt.SEQ, gpt.VOCAB)
        self.model, self.stage, self.held = GPT(config), stage, {}
        for block in self.model.h if recompute else ():
            block.forward = functools.partial(checkpoint, block.forward)
        self.numbers = sum(p.numel() for p in self.model.parameters())
        if stage == 0:
            self.optimizer = AdamW(self.model.parameters(), lr=1e-3)
            self.sync = Bucketed(self.model.parameters(), comm)
        else:
            kind, options = (Zero3, {}) if stage == 3 else (Zero, {"stage": stage})
            self.optimizer = self.sync = kind(self.model, comm, AdamW, lr=1e-3, **options)

    def step(self, x, y):
        (self.model.loss(x, y, reduction="sum") / gpt.BATCH / gpt.SEQ).backward()
        self.sync.sum_gradients()
        self.optimizer.step()
        self.held = (
            self.optimizer.nbytes()
            if self.stage
            else bytes_by_use(self.model.parameters(), self.optimizer.state)
        )
        self.optimizer.zero_grad()


def measure(comm, rounds, recompute):
    part = gpt.BATCH // comm.size
    batches = gpt.tokens()[:, comm.rank * part : (comm.rank + 1) * part]
    runs = [Run(comm, stage) for stage in range(4)]
    if recompute:
        runs.append(Run(comm, 3, True))
    times = [[] for _ in runs]
    for number in range(rounds):
        rows = batches[number % len(batches)]
        x, y = Tensor(rows[:, :-1].copy()), Tensor(rows[:, 1:].copy())
        for run, seconds in zip(runs, times):
            barrier(comm)
            start = time.perf_counter()
            run.step(x, y)
            barrier(comm)
            seconds.append(time.perf_counter() - start)
    return runs, [statistics.median(t[1:]) for t in times]


def show(comm, rounds, recompute):
    runs, times = measure(comm, rounds, recompute)
    if comm.rank == 0:
        print(f"\n{comm.size} ranks on {os.cpu_count()} cores, MB that rank 0 holds, / by formula")
        print(f"{'stage':>5}{'parameters':>18}{'gradients':>18}{'optimizer':>18}{'step ms':>9}"
              f"{'of stage 0':>11}")  # fmt: skip
    for run, seconds in zip(runs, times):
        formula = zero_bytes(run.stage, run.numbers, comm.size, FLOAT32)
        cells = [f"{run.held[k] / 1e6:9.2f} /{getattr(formula, k) / 1e6:6.2f}" for k in run.held]
        if comm.rank == 0:
            print(f"{run.stage:5}" + "".join(f"{c:>18}" for c in cells)
                  + f"{1e3 * seconds:9.0f}{seconds / times[0]:11.2f}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="*", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=8, help="steps, the first not counted")
    parser.add_argument("--recompute", action="store_true",
                        help="also stage 3 whose backward computes the blocks again")  # fmt: skip
    parser.add_argument("--rank", action="store_true", help="this process is one of mpirun's")
    args = parser.parse_args()
    if args.rank:
        show(mpi_world(), args.rounds, args.recompute)
        return
    mpirun = Path(sys.executable).with_name("mpirun")
    for n in args.ranks:
        command = [str(mpirun), "-n", str(n), sys.executable, __file__, "--rank"]
        more = ["--recompute"] if args.recompute else []
        subprocess.run([*command, "--rounds", str(args.rounds), *more], check=True)


if __name__ == "__main__":
    main()
