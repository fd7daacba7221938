"""GPipe: all forwards, then all backwards, and every rank keeps all activations.

python gpipe.py               # four simulated ranks; on their clock F takes 1 ms, B 2 ms
mpirun -n 4 python gpipe.py   # four MPI ranks, timed by the wall clock
"""

import numpy as np

import minidist as md
from minidist import Tensor, nn
from minidist.comm import Clock, Communicator, launch, print_in_order
from minidist.nn import functional as F
from minidist.parallel.pipeline import Costs, Pipeline, gathered, simulate, timeline
from minidist.parallel.pipeline.cut import cut, ranges
from minidist.parallel.pipeline.schedules import make

M, ROWS = 8, 32  # micro-batches, rows of each
HOW = "executed, by the clock", "executed, by a simulated clock"
DRAWN = np.random.default_rng(0)
# Random images are enough: the lesson is the order of the steps.
IMAGES = DRAWN.random((M * ROWS, 8, 8), dtype="float32")
LABELS = DRAWN.integers(0, 10, M * ROWS)
INPUTS = [Tensor(IMAGES[i * ROWS : (i + 1) * ROWS, None]) for i in range(M)]  # (b, 1, 8, 8)
TARGETS = [Tensor(LABELS[i * ROWS : (i + 1) * ROWS]) for i in range(M)]


def build() -> nn.Sequential:
    """Eight layers; each stage gets some of them."""
    md.manual_seed(0)
    block = lambda n: nn.Sequential(nn.Conv2d(n, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
    head = nn.Sequential(nn.Flatten(), nn.Linear(1024, 10))
    return nn.Sequential(block(1), *(block(16) for _ in range(6)), head)


def criterion(y: Tensor, target: Tensor) -> Tensor:
    """A sum, divided by the rows of all micro-batches: their losses add up to the mean."""
    return F.cross_entropy(y, target, reduction="sum") / (M * ROWS)


def accumulate(model: nn.Module) -> float:
    """One process: add up the gradients of the micro-batches, in their order."""
    losses = [criterion(model(x), y) for x, y in zip(INPUTS, TARGETS)]
    for loss in losses:
        loss.backward()
    return sum(loss.item() for loss in losses)


def main(comm: Communicator) -> None:
    alone, schedule = build(), make("gpipe", comm.size, M)
    module, stages = cut(build(), ranges(len(alone), comm.size), [comm.rank])
    pipeline, live = Pipeline(module, stages, criterion, comm, schedule), []
    pipeline.watch = lambda run, action: live.append(len(run.graphs))  # from F to B
    pipeline.costs = Costs(1e6, 1e6, 1e6)  # operations of F, I and W; B is I and W
    loss = pipeline.step(INPUTS, TARGETS)
    lanes, predicted = gathered(comm, pipeline.executed), simulate(schedule)
    if comm.rank == 0:
        busy = sum(end - start for lane in lanes for _, start, end in lane) / comm.size
        idle = 1 - busy / max(lane[-1][2] for lane in lanes)
        print(f"predicted, F 1 and B 2 long: idle {predicted.idle_fraction:.1%} of all time, "
              f"{predicted.bubble_ratio:.1%} over the ideal\n{timeline(predicted.times)}\n"
              f"{HOW[comm.native is None]}: idle {idle:.1%}\n{timeline(lanes)}")  # fmt: skip
    assert loss == accumulate(alone), "another loss"
    for name, p in module.named_parameters():
        assert p.grad.data.tobytes() == alone.get_parameter(name).grad.data.tobytes(), name
    print_in_order(comm, f"rank {comm.rank} held {max(live)} of {M} micro-batches at most; loss "
                   f"{loss:.6f} and gradients of one process, to the bit")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10, gamma=1e-9))
