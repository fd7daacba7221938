"""Does the simulator foretell a pipeline's step, and is it ahead of PyTorch's? In turns, one run.

A GPT in stages, forward and backward of a whole batch, one thread a rank. First every schedule
against simulate(): the time of each stage's F, I and W, measured on one rank while the others
sleep, and α and β of ping-pong between two ranks. Then the schedules that PyTorch's
torch.distributed.pipelining has too, over gloo: the same weights, stages and micro-batches; loss
and gradients are compared. Both jobs of ranks stay up, and those that are not asked sleep.

A round is a turn of each; of all rounds the best counts, which others at work on this machine
spoil least. Run with `python benchmarks/pipeline.py` where minidist[mpi] and torch are installed;
without torch it answers the first question only.
"""

import argparse
import contextlib
import importlib.util
import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import gpt
import numpy as np
import pipeline_ranks as p
from data_parallel import MPIRUN, gloo

from minidist.errors import UserError
from minidist.parallel.pipeline import Costs, simulate

NBYTES = p.ROWS * p.SEQ * p.HIDDEN * 4  # of a message between stages
CORES = len(os.sched_getaffinity(0))
SILENCE = 120  # seconds after which a job is given up


class Job:
    """Processes, one a rank, that measure when they are asked."""

    def __init__(self, name, size, script, launcher=(), environments=({},)):
        self.name, env = name, {**os.environ, **gpt.THREADS}
        with socket.create_server(("127.0.0.1", 0)) as server:
            server.settimeout(SILENCE)
            port = str(server.getsockname()[1])
            command = [*launcher, sys.executable, str(Path(__file__).with_name(script)), port]
            self.processes = [subprocess.Popen(command, env=env | e) for e in environments]
            self.links = [server.accept()[0] for _ in range(size)]
        for link in self.links:
            link.settimeout(SILENCE)
        lines = [link.makefile("rw") for link in self.links]
        self.lines = dict(sorted((self._answer(each), each) for each in lines))  # by rank

    def ask(self, what, **told):
        """What all ranks answer, in their order."""
        for lines in self.lines.values():
            print(json.dumps([what, told]), file=lines, flush=True)
        return [self._answer(lines) for lines in self.lines.values()]

    def _answer(self, lines):
        line = lines.readline()
        if not line:
            raise SystemExit(f"{self.name}: a rank has ended; what it said is above")
        return json.loads(line)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for end in (*self.lines.values(), *self.links):
            end.close()  # by which a rank that sleeps ends; another one may hang
        for process in self.processes:
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.terminate()


def turn(job, case, steps):
    """The best step of one turn: its seconds, by the slowest rank, and what was computed."""
    ranks = job.ask("steps", case=case, count=steps)
    seconds = [max(each) for each in zip(*(r["seconds"] for r in ranks))]
    best = min(range(steps), key=seconds.__getitem__)
    found = {"seconds": seconds[best], "loss": max(r["loss"] for r in ranks),
             "norm": math.sqrt(sum(r["norm2"] for r in ranks))}  # fmt: skip
    if "computing" in ranks[0]:
        first, last, busy = zip(*(r["computing"][best] for r in ranks))
        span = max(last) - min(first)
        found |= {"busy": sum(busy), "bubble": 1 - sum(busy) / (span * len(ranks))}
    return found


def fitting(size):
    """The schedules that so many ranks can have with these layers and micro-batches."""
    found = {}
    for case in p.CASES:
        try:
            found[case] = p.schedule_of(case, size)
            p.ranges(p.LAYERS, found[case].stages)
        except UserError as error:
            found.pop(case, None)
            print(f"{case} on {size} ranks is left out: {error}")
    return found


def measure(size, rounds, steps, with_torch):
    """α and β, the costs by number of stages, and of each side and schedule the best step."""
    schedules = fitting(size)
    costs = {s.stages: [] for s in schedules.values()}
    runs = {"ours": {case: [] for case in schedules}}
    runs["theirs"] = {case: [] for case in schedules if p.CASES[case][2] and with_torch}
    with contextlib.ExitStack() as stack:
        start = lambda *how: stack.enter_context(Job(*how))
        jobs = {
            "ours": start("minidist", size, "pipeline_ranks.py", (str(MPIRUN), "-n", str(size)))
        }
        if with_torch:
            jobs["theirs"] = start("PyTorch", size, "pipeline_torch.py", (), gloo(size))
        links = jobs["ours"].ask("links")[0]
        for _ in range(rounds):
            for stages, found in costs.items():
                found.append(jobs["ours"].ask("costs", stages=stages, repeats=3)[0])
            for case, side in itertools.product(schedules, jobs):
                if case in runs[side]:
                    runs[side][case].append(turn(jobs[side], case, steps))
            check_same(runs)
    best = lambda turns: min(turns, key=lambda t: t["seconds"])
    return {
        "ranks": size, "links": links,
        "costs": {stages: np.min(found, axis=0).tolist() for stages, found in costs.items()},
        **{side: {case: best(t) for case, t in cases.items()} for side, cases in runs.items()},
    }  # fmt: skip


def check_same(runs):
    """Both sides have the same loss and gradient: it is the same work."""
    for case, turns in runs["theirs"].items():
        a, b = runs["ours"][case][-1], turns[-1]
        for what in ("loss", "norm"):
            if not math.isclose(a[what], b[what], rel_tol=1e-4):
                raise SystemExit(f"{case}: {what} {a[what]} here, {b[what]} in PyTorch")


# What it says

HEAD = """\
                    foretold, ms            measured            bubble           computing,
schedule        makespan  work/cores      ms  /foretold   foretold  measured   over alone"""
SHARED = """\
The makespan is that of a core a rank. Here cores are shared: what is foretold is no less than the
work over the cores, and a rank counts as computing while another one has its core."""


def show_foretold(found):
    """Every schedule of ours beside its simulation."""
    size, (alpha, beta) = found["ranks"], found["links"]
    print(
        f"\n{size} ranks on {CORES} cores; α = {1e6 * alpha:.1f} µs, "
        f"β = {1e9 * beta:.3f} ns a byte; F + I + W of each stage alone, ms:"
    )
    for stages, times in found["costs"].items():
        print(f"  {stages}: " + ", ".join("+".join(f"{1e3 * t:.1f}" for t in s) for s in times))
    print(f"{SHARED}\n{HEAD}" if size > CORES else HEAD)
    for case, ours in found["ours"].items():
        schedule = p.schedule_of(case, size)
        times = [list(kind) for kind in zip(*found["costs"][schedule.stages])]
        told = simulate(schedule, Costs(*times), alpha, beta, NBYTES)
        work, seconds = sum(told.work), ours["seconds"]
        least = work / min(size, CORES)
        print(
            f"{case:15}{1e3 * told.makespan:9.0f}{1e3 * least:12.0f}{1e3 * seconds:8.0f}"
            f"{seconds / max(told.makespan, least):11.2f}{told.idle_fraction:11.1%}"
            f"{ours['bubble']:10.1%}{ours['busy'] / work:13.2f}"
        )


def show_beside(found):
    """Tokens a second of both sides; returns the ratios."""
    rate = lambda side, case: p.TOKENS / found[side][case]["seconds"]
    ratios = {case: rate("ours", case) / rate("theirs", case) for case in found["theirs"]}
    print(f"\n{found['ranks']} ranks, tokens/s{'':10}ours   PyTorch  ours/PyTorch")
    for case, ratio in ratios.items():
        print(f"{case:23}{rate('ours', case):10,.0f}{rate('theirs', case):10,.0f}{ratio:14.2f}")
    return ratios


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--ranks", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=2, help="in a turn")
    parser.add_argument("--json", type=Path, help="where to write what was measured")
    args = parser.parse_args()
    if min(args.ranks) < 2:
        parser.error(f"--ranks {min(args.ranks)}: a pipeline has at least 2")
    with_torch = importlib.util.find_spec("torch") is not None
    print(
        f"GPT L{p.LAYERS} h{p.HIDDEN} a{p.HEADS} s{p.SEQ} V{p.VOCAB} float32, {p.MICROBATCHES} "
        f"micro-batches of {p.ROWS} rows, one thread a rank; the best of {args.rounds} turns"
    )
    found = [measure(size, args.rounds, args.steps, with_torch) for size in args.ranks]
    for each in found:
        show_foretold(each)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1))
    if not with_torch:
        print("\nBeside PyTorch: not measured, install it by pip install 'minidist[bench]'")
        return
    ratios = {each["ranks"]: show_beside(each) for each in found}
    goal = (
        f"{c} {'reached' if r > 1 else 'missed'} ({r:.2f})" for c, r in ratios.get(2, {}).items()
    )
    if 2 in ratios:
        print(f"\nGoal, ahead of PyTorch at 2 ranks: {', '.join(goal)}")


if __name__ == "__main__":
    main()
