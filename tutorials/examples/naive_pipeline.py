"""A pipeline by hand: a stage on each rank, one micro-batch at a time: only one rank works.

python naive_pipeline.py               # four simulated ranks; F takes 1 ms, B 2 ms
mpirun -n 4 python naive_pipeline.py   # four MPI ranks, timed by the wall clock
"""

from itertools import pairwise

import numpy as np

import minidist as md
from minidist import Tensor, nn
from minidist.comm import Clock, Communicator, barrier, launch, print_in_order
from minidist.nn import functional as F
from minidist.parallel.pipeline import Action, gathered, timeline

M, ROWS, WIDTH = 4, 128, 512  # micro-batches, rows of each, numbers in a row between stages
DRAWN = np.random.default_rng(0)
IMAGES = DRAWN.random((M * ROWS, 8, 8), dtype="float32")
LABELS = DRAWN.integers(0, 10, M * ROWS)


def build(stages: int) -> list[nn.Module]:
    """All stages: every rank makes the whole model, and keeps one stage."""
    md.manual_seed(0)
    sizes = [64, *[WIDTH] * (2 * stages - 1), 10]
    layers = [nn.Linear(n, m) for n, m in pairwise(sizes)]
    return [nn.Sequential(a, nn.GELU(), b) for a, b in zip(layers[::2], layers[1::2])]


def run(comm: Communicator, stage: nn.Module) -> tuple[float, list]:
    """Every micro-batch through this rank's stage: the loss (last rank) and the times."""
    rank, last, loss, times = comm.rank, comm.size - 1, 0.0, []
    for i, rows in enumerate(slice(n, n + ROWS) for n in range(0, M * ROWS, ROWS)):
        x = Tensor(IMAGES[rows].reshape(ROWS, 64))
        if rank > 0:
            x = Tensor(comm.recv(np.empty((ROWS, WIDTH), "float32"), rank - 1))
            x.requires_grad_()  # the rank before waits for the gradient of x
        start = comm.time()
        y = stage(x)
        if rank == last:
            y = F.cross_entropy(y, Tensor(LABELS[rows]), reduction="sum") / (M * ROWS)
            loss += y.item()
        comm.compute(1e6)  # operations, for the clock of simulated ranks
        times.append((Action(rank, "F", i), start, comm.time()))
        if rank < last:
            comm.send(y.data, rank + 1)
        g = np.ones_like(y.data) if rank == last else comm.recv(np.empty_like(y.data), rank + 1)
        start = comm.time()
        y.backward(Tensor(g))
        comm.compute(2e6)
        times.append((Action(rank, "B", i), start, comm.time()))
        if rank > 0:
            comm.send(x.grad.data, rank - 1)
    return loss, times


def main(comm: Communicator) -> None:
    p, last, alone = comm.size, comm.size - 1, build(comm.size)
    wanted, _ = run(comm.split(comm.rank), nn.Sequential(*alone))  # one process has all stages
    barrier(comm)
    loss, times = run(comm, stage := build(p)[comm.rank])
    assert comm.rank < last or loss == wanted, f"loss {loss}, but {wanted} of one process"
    for ours, theirs in zip(stage.parameters(), alone[comm.rank].parameters(), strict=True):
        assert ours.grad.data.tobytes() == theirs.grad.data.tobytes(), "another gradient"
    lanes = gathered(comm, times)
    busy = sum(e - s for lane in lanes for _, s, e in lane) / (p * max(t[-1][2] for t in lanes))
    if comm.rank == last:
        print(timeline(lanes))
        print(f"ranks are idle {1 - busy:.1%} of their time; {last / p:.1%} if messages took none")
    print_in_order(comm, f"rank {comm.rank}: gradients of one process, to the bit")


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10, gamma=1e-9))
