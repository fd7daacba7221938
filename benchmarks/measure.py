"""What the benchmarks measure by: one thread, runs in turns, and this machine's two rates.

Import it before NumPy and PyTorch, which read the number of threads when they are loaded.
"""

import os
import statistics
import time

os.environ.update(
    dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
)

import numpy as np
import torch

RNG = np.random.default_rng(0)
GEMM = 1024, 256, 1024  # rows, what is summed over, columns: a GPT's shapes


def seconds(run, least=0.05):
    """One measurement: the mean of as many runs as fill `least` seconds.

    Of the processor's time, to which others at work on it add nothing but a colder cache.
    """
    start, count = time.process_time(), 0
    while time.process_time() - start < least:
        run()
        count += 1
    return (time.process_time() - start) / count


def in_turns(*runs, rounds, least=0.05):
    """Median seconds of each, measured alternately, after a run that is not counted."""
    for run in runs:
        run()
    measured = [[seconds(run, least) for run in runs] for _ in range(rounds)]
    return [statistics.median(times) for times in zip(*measured)]


def rates():
    """(GEMM flops a second, bytes a second of a copy that misses the cache, there and back)."""
    m, k, n = GEMM
    x, w = (RNG.standard_normal(s).astype("float32") for s in ((m, k), (k, n)))
    out, big = np.empty((m, n), "float32"), np.ones(1 << 24, "float32")
    copy = np.empty_like(big)
    gemm = min(seconds(lambda: np.matmul(x, w, out=out)) for _ in range(5))
    move = min(seconds(lambda: np.copyto(copy, big)) for _ in range(5))
    return 2 * m * k * n / gemm, 2 * big.nbytes / move


def machine(flops_rate, byte_rate):
    """A line that says what the floors are made of."""
    return (
        f"one thread; GEMM {flops_rate / 1e9:.0f} GFLOP/s, copy {byte_rate / 1e9:.1f} GB/s; "
        f"NumPy {np.__version__}, PyTorch {torch.__version__}"
    )


if __name__ == "__main__":
    print(machine(*rates()))
