"""Each NumPy kernel beside its naive version and PyTorch's: one thread, float32, in turns.

Forward and backward together, unless the name says otherwise; each row's results are compared with
PyTorch's first. PyTorch is called through its autograd, as it is used; ours are bare functions. The
floor is the time of a kernel's products at the GEMM rate measured here (flops), or that of reading
its inputs and writing its outputs once at the bandwidth measured here (bytes): arrays that fit the
cache may be faster than that.
"""

import argparse

from measure import in_turns, machine, rates, seconds  # first: it sets the number of threads

import numpy as np  # isort: skip
import torch
from kernel_cases import passes, products
from minidist.kernels.dispatch import using

from minidist.tensor.dtypes import keep_heap

GOAL = 1.3


def check(name, ours, theirs):
    """Our results are PyTorch's, to float32's accuracy."""
    for a, b in zip(ours, theirs, strict=True):
        b = b.numpy()
        apart = np.abs(a - b).max() / max(1, np.abs(b).max())
        assert a.shape == b.shape and apart < 1e-3, f"{name}: {a.shape}, {b.shape}, {apart:.1e}"


def naively(run):
    def inside():
        with using("naive"):
            return run()

    return inside


def measure(name, case, rounds):
    """Seconds: naive, ours, PyTorch's."""
    if case.same:
        check(name, case.ours(), case.theirs())
    naive = seconds(naively(case.ours))
    return naive, *in_turns(case.ours, case.theirs, rounds=rounds)


def table(only, rounds):
    """Prints the rows; returns each one's ratio to PyTorch."""
    flops_rate, byte_rate = rates()
    print(machine(flops_rate, byte_rate))
    print(
        f"{'milliseconds':27}{'size':20}{'naive':>8}{'ours':>8}{'PyTorch':>9}{'floor':>8}"
        f"{'':7}{'ours/PyTorch':>13}{'ours/floor':>11}"
    )
    ratios = {}
    for name, make in (products.CASES | passes.CASES).items():
        if only in name:
            case = make()
            floor = case.flops / flops_rate + case.moved / byte_rate
            ratios[f"{name} {case.size}"] = row(name, case, floor, *measure(name, case, rounds))
    return ratios


def row(name, case, floor, naive, ours, theirs):
    """Prints one, and returns its ratio to PyTorch."""
    print(
        f"{name:27}{case.size:20}{1e3 * naive:8.2f}{1e3 * ours:8.2f}{1e3 * theirs:9.2f}"
        f"{1e3 * floor:8.2f}{' flops' if case.flops else ' bytes':7}{ours / theirs:13.2f}"
        f"{ours / floor:11.2f}",
        flush=True,
    )
    return ours / theirs


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", default="", help="part of a kernel's name")
    args = parser.parse_args()
    torch.set_num_threads(1)
    keep_heap()
    ratios = table(args.only, args.rounds)
    slow = [f"{name} ({ratio:.2f})" for name, ratio in ratios.items() if ratio > GOAL]
    print(f"{len(ratios) - len(slow)} of {len(ratios)} within {GOAL} x PyTorch", end="")
    print(f"; not {', '.join(slow)}" if slow else "")


if __name__ == "__main__":
    main()
