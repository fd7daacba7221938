"""How fast is `make train` beside PyTorch? The same model, text, clipping and AdamW, in turns.

`minidist train` with its default options (train/config.py) on 1, 2 and 4 ranks of this machine,
against PyTorch eager with fused AdamW: one process of one or two threads, and
DistributedDataParallel over gloo with gradients as views of its buckets. Both sides start from the
same weights, and the benchmark stops if their losses differ. Each measurement is a job of its own;
a round is one of each, and the best round of each counts.

`--profile` prints instead where a step's time goes. Run with `python benchmarks/main_job.py` where
minidist[mpi] and torch are installed.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import gpt
import numpy as np
from data_parallel import MPIRUN, gloo

CLOSE = 1e-3  # how far two losses may differ
WARM = 5  # steps that are not counted
PAIRS = (  # ours and theirs: the way, and the number of ranks or threads
    (("minidist", 1), ("threads", 1)),
    (("minidist", 2), ("threads", 2)),
    (("minidist", 2), ("ddp", 2)),
    (("minidist", 4), ("ddp", 4)),
)
NAMES = {
    "minidist": "minidist, ranks: {}", "threads": "PyTorch, threads: {}", "ddp": "DDP, ranks: {}",
    "profile": "minidist, ranks: {}",
}  # fmt: skip


def corpus_of(config):
    from minidist import data

    return data.load(config.data, config.seq, config.drop_repeats, config.encoding)


# The two sides: a function that makes step(number) -> the global loss


def ours(comm):
    """The trainer of `minidist train`, on this rank."""
    from minidist.train.config import TrainConfig
    from minidist.train.loop import Trainer

    config = TrainConfig()
    trainer = Trainer(config, comm, corpus_of(config))
    return trainer, lambda step: trainer.step(step)["loss"]


def theirs(rank, size):
    """The same in PyTorch; DistributedDataParallel where there are several ranks."""
    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from torch.nn.parallel import DistributedDataParallel
    from torch_block import GPT

    from minidist import data
    from minidist.optim import warmup_cosine
    from minidist.train.config import TrainConfig
    from minidist.train.loop import make_model

    c = TrainConfig()
    corpus, shape = corpus_of(c), c.gpt(data.VOCAB)
    model = GPT(shape.layers, shape.hidden, shape.heads, shape.positions, shape.vocab)
    weights = make_model(c, data.VOCAB, None, range(shape.layers)).state_dict()
    model.load_state_dict({name: torch.from_numpy(np.array(w)) for name, w in weights.items()})
    groups = [
        {"params": [p for p in model.parameters() if p.ndim >= 2], "weight_decay": c.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=c.lr, betas=(0.9, 0.95), fused=True)
    rows = slice(rank * c.batch // size, (rank + 1) * c.batch // size)
    run = DistributedDataParallel(model, gradient_as_bucket_view=True) if size > 1 else model

    def step(number):
        starts = data.training_starts(corpus, c.seq, c.batch, c.seed, number)[rows]
        x, y = map(torch.from_numpy, data.windows(corpus.train, starts, c.seq))  # (rows, s) each
        loss = F.cross_entropy(run(x).reshape(-1, data.VOCAB), y.reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), c.clip)
        for group in optimizer.param_groups:
            group["lr"] = warmup_cosine(number, c.steps, c.warmup, c.lr, c.lr * c.final_lr)
        optimizer.step()
        loss = loss.detach()
        if size > 1:
            dist.all_reduce(loss)
        return loss.item() / size

    return step


def measured(step, steps):
    """Seconds of each step after the warm-up, every loss, and the processor's seconds a step."""
    seconds, losses = [], []
    for number in range(WARM + steps):
        if number == WARM:
            cpu = time.process_time()
        start = time.perf_counter()
        losses.append(step(number))
        seconds.append(time.perf_counter() - start)
    cpu = (time.process_time() - cpu) / steps
    return {"seconds": seconds[WARM:], "losses": losses, "cpu": cpu}


def work(way, steps):
    """One rank of a job: (its number, what it measured)."""
    if way in ("minidist", "profile"):
        from minidist.comm import mpi_world

        comm = mpi_world()
        trainer, step = ours(comm)
        found = measured(step, steps) if way == "minidist" else profiled(trainer, step, steps)
        return comm.rank, found
    import torch
    import torch.distributed as dist

    threads = int(os.environ["OMP_NUM_THREADS"])
    torch.set_num_threads(threads)
    if way == "threads":
        return 0, measured(theirs(0, 1), steps)
    dist.init_process_group("gloo")
    rank = dist.get_rank()
    found = measured(theirs(rank, dist.get_world_size()), steps)
    dist.destroy_process_group()
    return rank, found


def job(way, count, steps):
    """What each rank of a job in new processes measured."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", way, "--folder", folder]
        command += ["--steps", str(steps)]
        env = {**os.environ, **gpt.THREADS}
        if way == "ddp":
            processes = [subprocess.Popen(command, env=env | each) for each in gloo(count)]
        elif way == "threads":
            env |= dict.fromkeys(gpt.THREADS, str(count))
            processes = [subprocess.Popen(command, env=env)]
        else:
            processes = [subprocess.Popen([MPIRUN, "-n", str(count), *command], env=env)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"{NAMES[way].format(count)}: the job failed")
        files = sorted(Path(folder).glob("*.json"), key=lambda file: int(file.stem))
        return [json.loads(file.read_text()) for file in files]


# Where a step's time goes: this rank's clock, given to the innermost part that runs

PARTS = (
    "batch", "forward", "backward", "gradients: packing", "gradients: adding",
    "gradients: messages", "waiting", "clip", "optimizer", "loss and the rest",
)  # fmt: skip


class Clock:
    """Seconds and the processor's seconds of each part; a part inside another is not counted
    twice."""

    def __init__(self):
        self.spent = {part: [0.0, 0.0] for part in PARTS}
        self.part, self.since = PARTS[-1], self.now()

    def now(self):
        return time.perf_counter(), time.process_time()

    @contextmanager
    def inside(self, part):
        outer = self.switch(part)
        try:
            yield
        finally:
            self.switch(outer)

    def switch(self, part):
        now, before, self.part = self.now(), self.part, part
        for i in range(2):
            self.spent[before][i] += now[i] - self.since[i]
        self.since = now
        return before

    def timed(self, part, function):
        def call(*args, **options):
            with self.inside(part):
                return function(*args, **options)

        return call

    def watch(self, owner, name, part):
        setattr(owner, name, self.timed(part, getattr(owner, name)))


def profiled(trainer, step, steps):
    """Milliseconds a step of each part: [by the clock, of the processor]."""
    from minidist.comm.mpi.waiting import Process
    from minidist.comm.mpi.world import MpiCommunicator
    from minidist.tensor.tensor import Tensor

    for number in range(WARM):
        step(number)
    clock = Clock()
    clock.watch(trainer, "batch", "batch")
    clock.watch(trainer.model, "loss", "forward")
    clock.watch(Tensor, "backward", "backward")
    clock.watch(trainer.reducer, "sum_gradients", "gradients: packing")
    clock.watch(MpiCommunicator, "_isend", "gradients: messages")
    clock.watch(MpiCommunicator, "_irecv", "gradients: messages")
    clock.watch(Process, "wait_until", "waiting")
    MpiCommunicator.reducing = lambda self, combine: clock.timed("gradients: adding", combine)
    clock.watch(trainer.train_step, "clip", "clip")
    clock.watch(trainer.optimizer, "step", "optimizer")
    clock.switch(PARTS[-1])
    clock.spent = {part: [0.0, 0.0] for part in PARTS}
    for number in range(WARM, WARM + steps):
        step(number)
    clock.switch(PARTS[-1])
    return {part: [1e3 * s / steps for s in spent] for part, spent in clock.spent.items()}


def show_profile(counts, steps):
    print("milliseconds a step by the clock (of the processor), and the share; mean of the ranks")
    print(f"{'ranks':20}" + "".join(f"{count:25}" for count in counts))
    found = [job("profile", count, steps) for count in counts]
    # (counts, parts, 2): means over the ranks; below them the sum of all parts
    times = np.array([np.mean([[r[p] for p in PARTS] for r in ranks], 0) for ranks in found])
    times = np.concatenate([times, times.sum(1, keepdims=True)], 1)
    for i, part in enumerate((*PARTS, "step")):
        columns = (
            f"{t[i, 0]:9.2f} {f'({t[i, 1]:.2f})':>9}{t[i, 0] / t[-1, 0]:6.0%}" for t in times
        )
        print(f"{part:20}" + "".join(columns))


# What it says


def check_alike(losses):
    """Stop unless every job has the losses of every other."""
    reference, first = losses[0]
    for name, other in losses[1:]:
        apart = max(abs(a - b) for a, b in zip(first, other))
        if not apart <= CLOSE:
            raise SystemExit(f"{reference} and {name} do not train alike: losses differ by {apart}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=40, help="in a measurement")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--profile", action="store_true", help="print where our step's time goes")
    parser.add_argument("--worker", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        rank, found = work(args.worker, args.steps)
        (args.folder / f"{rank}.json").write_text(json.dumps(found))
        return
    from minidist.train.config import TrainConfig

    c = TrainConfig()
    size, tokens = c.shape, c.batch * c.seq
    name = f"{c.model} L{size['layers']} h{size['hidden']} a{size['heads']} s{c.seq} b{c.batch}"
    print(f"{name}, {c.data}; {os.cpu_count()} cores, {args.steps} steps")
    if args.profile:
        show_profile(args.ranks, args.steps)
        return
    print(f"best of {args.rounds} rounds in turns; processor: milliseconds a step, all ranks")
    pairs = [pair for pair in PAIRS if pair[0][1] in args.ranks]
    sides = list(dict.fromkeys(side for pair in pairs for side in pair))
    best, cpu = {}, {}
    for _ in range(args.rounds):
        losses = []
        for side in sides:
            ranks = job(*side, args.steps)
            losses.append((NAMES[side[0]].format(side[1]), ranks[0]["losses"]))
            seconds = statistics.median(map(max, zip(*(r["seconds"] for r in ranks))))
            best[side] = min(seconds, best.get(side, seconds))
            spent = sum(r["cpu"] for r in ranks)
            cpu[side] = min(spent, cpu.get(side, spent))
        check_alike(losses)
    print(f"{'':42}{'tokens/s':>20}{'processor':>18}{'tokens/s':>10}")
    print(f"{'':42}{'ours':>10}{'PyTorch':>10}{'ours':>9}{'PyTorch':>9}{'ratio':>10}")
    for pair in pairs:
        names = " / ".join(NAMES[way].format(count) for way, count in pair)
        rates = [tokens / best[side] for side in pair]
        times = [1e3 * cpu[side] for side in pair]
        print(
            f"{names:42}{rates[0]:10,.0f}{rates[1]:10,.0f}{times[0]:9.1f}{times[1]:9.1f}"
            f"{rates[0] / rates[1]:10.2f}"
        )


if __name__ == "__main__":
    main()
