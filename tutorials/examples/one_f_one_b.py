"""1F1B: each backward as soon as possible. GPipe's bubble, but fewer activations on a rank.

python one_f_one_b.py               # four simulated ranks, timed by a simulated clock
mpirun -n 4 python one_f_one_b.py   # four MPI ranks, timed by the wall clock

On the simulated clock F takes 1 ms and B 2 ms; a message takes 5 µs and 0.1 ns per byte.
"""

import numpy as np

from minidist import Tensor
from minidist.comm import Clock, Communicator, launch, print_in_order
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline import Costs, Pipeline, gathered, simulate, timeline
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.schedules import make

CONFIG = GPTConfig(layers=4, hidden=64, heads=4, positions=32, vocab=64)
COSTS = Costs(1e6, 1e6, 1e6)  # operations of F, I and W; B is I and W
M, COUNT = 8, 8 * 4 * 32  # micro-batches; all their tokens, by which sums are divided
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab, (M, 4, 33))
INPUTS, TARGETS = ([Tensor(x.copy()) for x in t] for t in (TOKENS[..., :-1], TOKENS[..., 1:]))


def alone() -> tuple[GPT, float]:
    """One process: add up the gradients and the losses of the micro-batches."""
    model, total = GPT(CONFIG, seed=0), 0.0
    model.part_head()  # sum the tied embedding's two uses apart, as on two ranks
    for x, y in zip(INPUTS, TARGETS):
        loss = model.loss(x, y, "sum") / COUNT
        loss.backward()
        total += loss.item()
    model.join_head()
    return model, total


def run(comm: Communicator, name: str) -> tuple[Pipeline, float, int]:
    """The same by a schedule; and the most micro-batches that this rank kept at once."""
    layers = ranges(CONFIG.layers, comm.size)[comm.rank]
    model = GPT(CONFIG, seed=0, layers=layers)
    model.part_head()  # needed if one rank has both ends
    stages = {comm.rank: lambda x: model.stage(x, layers)}
    loss_of = lambda states, target: model.loss_of(states, target, "sum") / COUNT
    pipeline, live = Pipeline(model, stages, loss_of, comm, make(name, comm.size, M)), []
    pipeline.watch = lambda run, action: live.append(len(run.graphs))  # from F to B
    pipeline.costs = COSTS
    loss = pipeline.step(INPUTS, TARGETS)
    model.join_head()
    return pipeline, loss, max(live)


def show(comm: Communicator, name: str, pipeline: Pipeline) -> None:
    lanes = gathered(comm, pipeline.executed)
    end = max(lane[-1][2] for lane in lanes)
    busy = sum(e - s for lane in lanes for _, s, e in lane) / (comm.size * end)
    predicted, how = simulate(pipeline.schedule), "a simulated" if comm.native is None else "the"
    if comm.rank == 0:
        print(f"{name} predicted, F 1 and B 2 long: idle {predicted.idle_fraction:.1%} "
              f"of all time, {predicted.bubble_ratio:.1%} over the ideal\n"
              f"{timeline(predicted.times)}\n"
              f"{name} executed, by {how} clock: idle {1 - busy:.1%}\n"
              f"{timeline(lanes)}")  # fmt: skip


def main(comm: Communicator) -> None:
    one, wanted = alone()
    for name in ("gpipe", "1f1b"):
        pipeline, loss, live = run(comm, name)
        show(comm, name, pipeline)
        for key, p in pipeline.module.named_parameters():
            assert p.grad.data.tobytes() == one.get_parameter(key).grad.data.tobytes(), key
        assert loss == wanted, f"loss {loss}, but {wanted} of one process"
        print_in_order(comm, f"{name} rank {comm.rank} held {live} of {M} micro-batches at most; "
                       f"loss {loss:.6f} and gradients of one process, to the bit")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10, gamma=1e-9))
