"""How fast is data parallel training beside PyTorch's DDP over gloo? One thread a rank, in turns.

The GPT of benchmarks/gpt.py and its global batch on 1, 2 and 4 ranks of this machine: ours over
MPI, gradients summed the naive, the bucketed and the overlapped way, PyTorch's in processes that
gloo joins, gradients as views of its buckets. Each measurement is a job of its own; a round is one
of each. Run with `python benchmarks/data_parallel.py` where minidist[mpi] and torch are installed.
"""

import argparse
import inspect
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import gpt

OURS = ("naive", "bucketed", "overlapped")
WAYS = (*OURS, "ddp")
MPIRUN = Path(sys.executable).with_name("mpirun")


def rows(rank, size):
    """This rank's part of every global batch."""
    part = gpt.BATCH // size
    return gpt.tokens()[:, rank * part : (rank + 1) * part]


def timed(step, batches, barrier):
    """Seconds of every step but the first two, from when all ranks begin until all are done."""
    seconds = []
    for batch in batches:
        barrier()
        start = time.perf_counter()
        step(batch)
        barrier()
        seconds.append(time.perf_counter() - start)
    return seconds[2:]


def ours(way, bucket_mib, algorithm):
    """This rank's seconds by one of our ways."""
    import minidist as md
    from minidist.comm import barrier, mpi_world
    from minidist.models.gpt import GPT, GPTConfig
    from minidist.optim import AdamW
    from minidist.parallel.data import Bucketed, Naive, Overlapped
    from minidist.tensor.dtypes import keep_heap

    keep_heap()
    comm, nbytes = mpi_world(), int(bucket_mib * 2**20)
    model = GPT(GPTConfig(gpt.LAYERS, gpt.HIDDEN, gpt.HEADS, gpt.SEQ, gpt.VOCAB))
    optimizer, params = AdamW(model.parameters(), lr=1e-3), list(model.parameters())
    sync = {
        "naive": lambda: Naive(params, comm, algorithm),
        "bucketed": lambda: Bucketed(params, comm, nbytes, algorithm),
        "overlapped": lambda: Overlapped(params, comm, nbytes, algorithm),
    }[way]()

    def step(batch):
        total = model.loss(md.Tensor(batch[:, :-1]), md.Tensor(batch[:, 1:]), reduction="sum")
        optimizer.zero_grad()
        (total / (gpt.BATCH * gpt.SEQ)).backward()
        sync.sum_gradients()
        optimizer.step()

    return comm.rank, timed(step, rows(comm.rank, comm.size), lambda: barrier(comm))


def ddp():
    """The same by PyTorch, of the very model and optimizer of benchmarks/gpt.py."""
    import torch
    import torch.distributed as dist
    from torch.nn import functional as F
    from torch.nn.parallel import DistributedDataParallel

    dist.init_process_group("gloo")
    parts = inspect.getclosurevars(gpt.torch_step()).nonlocals
    model = DistributedDataParallel(parts["model"], gradient_as_bucket_view=True)
    optimizer, rank = parts["optimizer"], dist.get_rank()

    def step(batch):
        batch = torch.from_numpy(batch)
        logits = model(batch[:, :-1]).reshape(-1, gpt.VOCAB)
        optimizer.zero_grad()
        F.cross_entropy(logits, batch[:, 1:].reshape(-1)).backward()
        optimizer.step()

    seconds = timed(step, rows(rank, dist.get_world_size()), dist.barrier)
    dist.destroy_process_group()
    return rank, seconds


def job(way, size, *options):
    """The median step of one way on so many ranks, in new processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, __file__, "--worker", way, "--folder", folder, *options]
        env = {**os.environ, **gpt.THREADS}
        if way == "ddp":
            processes = [subprocess.Popen(command, env=env | e) for e in gloo(size)]
        else:
            processes = [subprocess.Popen([MPIRUN, "-n", str(size), *command], env=env)]
        codes = [process.wait() for process in processes]
        if any(codes):
            raise SystemExit(f"{way} on {size} ranks failed")
        ranks = [json.loads(Path(folder, f"{rank}.json").read_text()) for rank in range(size)]
    return statistics.median(map(max, zip(*ranks)))


def gloo(size):
    """What tells each process of a job of PyTorch who it is."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": str(size)}
    return [{**world, "RANK": str(rank)} for rank in range(size)]


def report(size, rounds):
    """One line: tokens a second in the best round of each, which others at work spoil least."""
    rates = {way: gpt.BATCH * gpt.SEQ / min(r[way] for r in rounds) for way in WAYS}
    told = "".join(f"{rates[way]:11,.0f}" for way in WAYS)
    print(f"{size:5} {told}   " + "".join(f"{rates[way] / rates['ddp']:11.2f}" for way in OURS))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--bucket-mib", type=float, default=4)
    parser.add_argument("--algorithm", default="ring")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    options = "--bucket-mib", str(args.bucket_mib), "--algorithm", args.algorithm
    if args.worker:
        how = args.worker, args.bucket_mib, args.algorithm
        rank, seconds = ddp() if args.worker == "ddp" else ours(*how)
        (args.folder / f"{rank}.json").write_text(json.dumps(seconds))
        return
    print(
        f"GPT L{gpt.LAYERS} h{gpt.HIDDEN} V{gpt.VOCAB} s{gpt.SEQ}, global batch {gpt.BATCH}, "
        f"{os.cpu_count()} cores, {args.rounds} rounds in turns, of each the best; "
        f"{args.algorithm}, {args.bucket_mib:g} MiB"
    )
    print(f"{'':6}{'tokens/s':>11}{'':36}{'over DDP':>11}")
    print("ranks " + "".join(f"{w:>11}" for w in WAYS) + "   " + "".join(f"{w:>11}" for w in OURS))
    for size in args.ranks:
        report(size, [{w: job(w, size, *options) for w in WAYS} for _ in range(args.rounds)])


if __name__ == "__main__":
    main()
