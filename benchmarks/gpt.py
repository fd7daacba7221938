"""How fast is a GPT training step beside PyTorch's? One thread each, in turns, the same model.

L4 h256 a4 V4096 s128 b8 float32, fused AdamW; PyTorch eager with its fused attention. Run with
`python benchmarks/gpt.py` where minidist and torch are installed.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

THREADS = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
LAYERS, HIDDEN, HEADS, VOCAB, SEQ, BATCH, STEPS = 4, 256, 4, 4096, 128, 8, 20


def tokens():
    import numpy as np

    return np.random.default_rng(0).integers(0, VOCAB, (STEPS, BATCH, SEQ + 1))


def minidist_step():
    """One training step of ours: (batch (b, s + 1)) -> loss."""
    import minidist as md
    from minidist.models.gpt import GPT, GPTConfig
    from minidist.optim import AdamW
    from minidist.tensor.dtypes import keep_heap

    keep_heap()
    model = GPT(GPTConfig(LAYERS, HIDDEN, HEADS, SEQ, VOCAB))
    optimizer = AdamW(model.parameters(), lr=1e-3)

    def step(batch):
        loss = model.loss(md.Tensor(batch[:, :-1]), md.Tensor(batch[:, 1:]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def torch_step():
    """The same step in PyTorch."""
    import torch
    from torch.nn import functional as F
    from torch_block import GPT

    torch.set_num_threads(1)
    model = GPT(LAYERS, HIDDEN, HEADS, SEQ, VOCAB)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)

    def step(batch):
        batch = torch.from_numpy(batch)
        logits = model(batch[:, :-1])
        loss = F.cross_entropy(logits.reshape(-1, VOCAB), batch[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def resident():
    """MiB of memory this process holds now."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20


def timed(name):
    """The median step after two for warm-up, the last loss, and what model and steps added."""
    __import__(name)
    before = resident()
    step, seconds = {"minidist": minidist_step, "torch": torch_step}[name](), []
    for batch in tokens():
        start = time.perf_counter()
        loss = step(batch)
        seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10 - before
    return {"seconds": statistics.median(seconds[2:]), "loss": loss, "mib": peak}


def gemm_share():
    """The part of a step that our kernels spend inside matmul."""
    from minidist.kernels import arrays

    step, batches, inside, matmul = minidist_step(), tokens(), [0.0], arrays.matmul

    def clocked(*args, **options):
        start = time.perf_counter()
        try:
            return matmul(*args, **options)
        finally:
            inside[0] += time.perf_counter() - start

    step(batches[0])
    arrays.matmul = clocked
    start = time.perf_counter()
    for batch in batches[1:]:
        step(batch)
    return {"share": inside[0] / (time.perf_counter() - start)}


def worker(name):
    """Run one measurement in a process of its own."""
    command = [sys.executable, __file__, "--worker", name]
    env = {**os.environ, **THREADS}
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--worker", choices=["minidist", "torch", "gemm"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        print(json.dumps(gemm_share() if args.worker == "gemm" else timed(args.worker)))
        return
    rows = [(worker("minidist"), worker("torch")) for _ in range(args.rounds)]
    print(
        f"GPT L{LAYERS} h{HIDDEN} a{HEADS} V{VOCAB} s{SEQ} b{BATCH} float32, one thread, "
        f"{STEPS} steps x {args.rounds} rounds in turns"
    )
    for i, name in enumerate(("minidist", "torch eager")):
        seconds = statistics.median(r[i]["seconds"] for r in rows)
        peak = statistics.median(r[i]["mib"] for r in rows)
        print(
            f"{name:>12}: {1e3 * seconds:6.1f} ms a step, {BATCH * SEQ / seconds:7.0f} tokens/s, "
            f"peak {peak:.0f} MiB over the imports"
        )
    ratios = sorted(t["seconds"] / m["seconds"] for m, t in rows)
    print(
        f"minidist / torch, tokens/s: {statistics.median(ratios):.2f} "
        f"(rounds {ratios[0]:.2f} to {ratios[-1]:.2f})"
    )
    print(f"share of our step inside GEMM: {worker('gemm')['share']:.0%}")


if __name__ == "__main__":
    main()
