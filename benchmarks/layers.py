"""Each layer beside PyTorch's: forward + backward, one thread, in turns, with the floor beside it.

The same text builds both, because the names are the same. The floor is the time that the GEMMs
alone would take at the rate measured here, or the bytes at the measured copy bandwidth.
"""

import argparse
import math
import re
import statistics
import subprocess
import sys
from pathlib import Path

from measure import RNG, in_turns, machine, rates  # first: it sets the number of threads

import numpy as np  # isort: skip
import torch
from gpt import minidist_step, resident, tokens, torch_step

import minidist as md
from minidist import nn, optim
from minidist.tensor.dtypes import keep_heap

N, V, H = 1024, 4096, 256


class Ours:
    """minidist under the names that the cases use."""

    nn, F, optim = nn, nn.functional, optim
    tensor = staticmethod(md.tensor)
    options: dict = {}


class Theirs:
    """PyTorch under the same names."""

    nn, F, optim = torch.nn, torch.nn.functional, torch.optim
    tensor = staticmethod(torch.tensor)
    options = {"fused": True}


def layer(make, shape, flops=0.0, arrays=0.0, pick=lambda y: y, dtype="float32"):
    """A case: a function of the input alone. flops are of forward; backward costs twice as many."""
    x = RNG.standard_normal(shape).astype(dtype)

    def build(lib):
        module, leaf = make(lib), lib.tensor(x)
        leaf.requires_grad_(True)
        y = pick(module(leaf))
        g = lib.tensor(np.random.default_rng(1).standard_normal(tuple(y.shape)).astype(dtype))

        def run():
            leaf.grad = None
            pick(module(leaf)).backward(g)

        return run

    return build, 3 * flops, arrays * x.nbytes


def recurrent(kind, gates):
    flops = 2 * 64 * 32 * gates * H * (H + H)
    return layer(lambda lib: getattr(lib.nn, kind)(H, H), (64, 32, H), flops, pick=lambda y: y[0])


def attention():
    def make(lib):
        return lambda x: lib.F.scaled_dot_product_attention(x, x, x, is_causal=True)

    return layer(make, (8, 8, 256, 64), 2 * 2 * 8 * 8 * 256 * 256 * 64 / 2)


def cross_entropy():
    target = RNG.integers(0, V, N)

    def make(lib):
        t = lib.tensor(target)
        return lambda x: lib.F.cross_entropy(x, t)

    return layer(make, (N, V), arrays=4)


def embedding():
    index = RNG.integers(0, V, (8, 128))

    def build(lib):
        module, i = lib.nn.Embedding(V, H), lib.tensor(index)
        g = lib.tensor(np.ones((8, 128, H), np.float32))

        def run():
            module.weight.grad = None
            module(i).backward(g)

        return run

    return build, 0, (V * H + 3 * 8 * 128 * H) * 4


def adam(size=3_000_000, fused=False):
    start = RNG.standard_normal(size).astype("float32")

    def build(lib):
        p = lib.nn.Parameter(lib.tensor(start))
        p.grad = lib.tensor(start * 0.1)
        return lib.optim.Adam([p], lr=1e-3, **(lib.options if fused else {})).step

    return build, 0, 7 * start.nbytes


def training_step(make, shape, classes, flops):
    """A whole step of a classifier: loss, backward, fused Adam."""
    x, y = RNG.standard_normal(shape).astype("float32"), RNG.integers(0, classes, shape[0])

    def build(lib):
        model, inputs, target = make(lib), lib.tensor(x), lib.tensor(y)
        optimizer = lib.optim.Adam(model.parameters(), lr=1e-3, **lib.options)

        def run():
            loss = lib.F.cross_entropy(model(inputs), target)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return run

    return build, 3 * flops, 0


def cnn_step():
    def make(lib):
        n = lib.nn
        return n.Sequential(
            n.Conv2d(3, 32, 3, padding=1), n.ReLU(), n.MaxPool2d(2),
            n.Conv2d(32, 64, 3, padding=1), n.ReLU(), n.MaxPool2d(2),
            n.Flatten(), n.Linear(64 * 64, 128), n.ReLU(), n.Linear(128, 10),
        )  # fmt: skip

    flops = 2 * 32 * (32 * 32 * 27 * 32 + 16 * 16 * 288 * 64 + 4096 * 128)
    return training_step(make, (32, 3, 32, 32), 10, flops)


def lstm_step():
    def make(lib):
        class Reader(lib.nn.Module):
            def __init__(self):
                super().__init__()
                self.lstm, self.head = lib.nn.LSTM(64, H), lib.nn.Linear(H, 10)

            def forward(self, x):
                return self.head(self.lstm(x.transpose(0, 1))[0][-1])

        return Reader()

    return training_step(make, (32, 64, 64), 10, 2 * 32 * 64 * 4 * H * (64 + H))


def gpt_step():
    batches = tokens()

    def build(lib):
        step = minidist_step() if lib is Ours else torch_step()
        return lambda: step(batches[0])

    return build, 3 * 2 * N * (4 * 12 * H * H + V * H), 0


CASES = {
    "linear 1024x256 -> 1024": lambda: layer(
        lambda lib: lib.nn.Linear(H, 4 * H), (N, H), 2 * N * H * 4 * H),
    "conv2d 3x3 64ch 32x32 b32": lambda: layer(
        lambda lib: lib.nn.Conv2d(64, 64, 3, padding=1), (32, 64, 32, 32),
        2 * 32 * 32 * 32 * 64 * 64 * 9),
    "LSTM h256 64 steps b32": lambda: recurrent("LSTM", 4),
    "GRU h256 64 steps b32": lambda: recurrent("GRU", 3),
    "attention 8 heads s256 b8": attention,
    "softmax 4096x1024": lambda: layer(
        lambda lib: lambda x: lib.F.softmax(x, -1), (V, N), arrays=5),
    "layer norm 1024x256": lambda: layer(lambda lib: lib.nn.LayerNorm(H), (N, H), arrays=5),
    "GELU (tanh) 1024x1024": lambda: layer(
        lambda lib: lib.nn.GELU("tanh"), (N, N), arrays=5),
    "cross-entropy 1024x4096": cross_entropy,
    "embedding 4096x256, 1024": embedding,
    "Adam 3M": adam,
    "Adam 3M (PyTorch fused)": lambda: adam(fused=True),
    "step: GPT L4 h256": gpt_step,
    "step: CNN 32x32 b32": cnn_step,
    "step: LSTM h256 s64 b32": lstm_step,
}  # fmt: skip


def compare_speed(only, rounds):
    flops_rate, byte_rate = rates()
    print(machine(flops_rate, byte_rate))
    print(f"{'forward + backward':28}{'minidist':>10}{'PyTorch':>10}{'ratio':>7}{'floor':>10}")
    ratios = []
    for name, case in CASES.items():
        if only not in name:
            continue
        build, flops, moved = case()
        ours, theirs = in_turns(build(Ours), build(Theirs), rounds=rounds)
        floor = flops / flops_rate + moved / byte_rate
        ratios.append(ours / theirs)
        print(
            f"{name:28}{1e3 * ours:7.2f} ms{1e3 * theirs:7.2f} ms{ratios[-1]:7.2f}"
            f"{1e3 * floor:7.2f} ms",
            flush=True,
        )
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(f"geometric mean of the ratios (below 1: minidist is faster): {mean:.2f}")


def peak(name, library):
    """MiB that a process of its own needs for three runs of a case, over its imports."""
    command = [sys.executable, __file__, "--only", name, "--peak", library]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def measure_peak(name, library):
    build, *_ = CASES[name]()
    if library == "minidist":
        import numba  # noqa: F401  # an import too, about 50 MiB: the first loop would load it
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten (Linux)
    before = resident()
    run = build({"minidist": Ours, "torch": Theirs}[library])
    for _ in range(3):
        run()
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+)", status)[1]) / 2**10 - before)


def compare_memory(only):
    print(f"{'peak memory over the imports':28}{'minidist':>10}{'PyTorch':>10}{'ratio':>7}")
    for name in CASES:
        if name.startswith("step") and only in name:
            ours, theirs = (peak(name, library) for library in ("minidist", "torch"))
            print(f"{name:28}{ours:6.0f} MiB{theirs:6.0f} MiB{ours / theirs:7.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", default="", help="part of a case's name")
    parser.add_argument("--peak", choices=["minidist", "torch"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_heap()
    if args.peak:
        measure_peak(args.only, args.peak)
        return
    compare_speed(args.only, args.rounds)
    compare_memory(args.only)


if __name__ == "__main__":
    main()
