"""Replicas of a pipeline: micro-batches through the stages, then gradients summed over replicas.

python dp_pipeline.py               # four simulated ranks, timed by a simulated clock
mpirun -n 4 python dp_pipeline.py   # four MPI ranks, timed by the wall clock

On the simulated clock F takes 1 ms and B 2 ms; a message takes 5 µs and 0.1 ns per byte.
"""

import numpy as np

from minidist import Tensor
from minidist.comm import (
    Clock,
    Communicator,
    Ledger,
    all_reduce,
    launch,
    print_in_order,
    shard_range,
)
from minidist.models.gpt import GPT, GPTConfig
from minidist.optim import SGD
from minidist.parallel.data import Bucketed
from minidist.parallel.mesh import Mesh
from minidist.parallel.pipeline import Costs, Pipeline, gathered, timeline
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.schedules import make

CONFIG = GPTConfig(layers=4, hidden=32, heads=4, positions=16, vocab=64)
TOKENS = np.random.default_rng(0).integers(0, 64, (24, 17))  # 24 rows of 16 tokens, and the next
M, STEPS = 6, 3  # micro-batches of each replica


def build(layers: range) -> tuple[GPT, SGD]:
    model = GPT(CONFIG, layers=layers).double()
    model.reset_parameters(0)
    return model, SGD(model.parameters(), lr=0.1, momentum=0.9)


def alone() -> tuple[dict, float]:
    """One process, all rows at once: its weights and its last loss."""
    model, optimizer = build(range(CONFIG.layers))
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = model.loss(Tensor(TOKENS[:, :-1]), Tensor(TOKENS[:, 1:]))
        loss.backward()
        optimizer.step()
    return model.state_dict(), loss.item()


def main(comm: Communicator) -> None:
    p = 1 + (comm.size % 2 == 0)
    mesh = Mesh(pp=p, dp=comm.size // p)
    pp, dp = mesh.group(comm, "pp"), mesh.group(comm, "dp")
    model, optimizer = build(layers := ranges(CONFIG.layers, p)[pp.rank])
    loss_of = lambda states, target: model.loss_of(states, target, "sum") / TOKENS[:, 1:].size
    stage = {pp.rank: lambda x: model.stage(x, layers)}
    pipeline = Pipeline(model, stage, loss_of, pp, make("1f1b", p, M))
    pipeline.costs = Costs(1e6, 1e6, 1e6)  # operations of F, I and W on the simulated clock
    sums = Bucketed(model, dp)
    first, last = shard_range(len(TOKENS), dp.size, dp.rank)  # this replica's rows
    rows = np.array_split(TOKENS[first:last], M)
    inputs, targets = ([Tensor(x[:, i : i + 16].copy()) for x in rows] for i in (0, 1))
    for _ in range(STEPS):
        optimizer.zero_grad()
        with Ledger(comm) as through:  # between stages, and between the tied embedding's copies
            loss = pipeline.step(inputs, targets)
        with Ledger(comm) as across:  # between replicas: once, after the last backward
            sums.sum_gradients()
        optimizer.step()
    (state, wanted), loss = alone(), float(all_reduce(dp, np.array(loss)))
    far = max(np.abs(value - state[name]).max() for name, value in model.state_dict().items())
    assert far < 1e-12 and abs(loss - wanted) < 1e-12, f"{far} away"
    counts = {name or "send": n for (name,), (n, _) in through.by("collective").items()}
    assert counts.get("send", 0) == M * (p - 1) and across.messages == 2 * (dp.size - 1)
    lanes = gathered(comm, pipeline.executed)
    if comm.rank == 0:
        print(timeline(lanes))
    print_in_order(comm, f"rank {comm.rank}, stage {pp.rank} of replica {dp.rank}: messages a step "
                   f"{counts}, then {across.messages} across replicas; loss {loss:.6f}, "
                   f"weights {far:.0e} from one process after {STEPS} steps")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10, gamma=1e-9))
