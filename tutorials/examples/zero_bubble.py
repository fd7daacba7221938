"""Zero bubble: backward in two parts, I at once for the rank before, and W when there is time.

python zero_bubble.py               # four simulated ranks, timed by a simulated clock
mpirun -n 4 python zero_bubble.py   # four MPI ranks, timed by the wall clock

On the simulated clock F, I and W of a layer take 1 ms; a message takes 5 µs and 0.1 ns per byte.
"""

import numpy as np

from minidist import Tensor
from minidist.comm import Clock, Communicator, launch, print_in_order
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline import Costs, Pipeline, Schedule, gathered, simulate, timeline
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.schedules import make

CONFIG = GPTConfig(layers=8, hidden=48, heads=4, positions=32, vocab=64)
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


def build(comm: Communicator, name: str) -> Pipeline:
    """A pipeline by a schedule. With zbv a rank has two stages: rank 0 the first and the last."""
    schedule = make(name, comm.size, M)
    layers, mine = ranges(CONFIG.layers, schedule.stages), schedule.stages_of(comm.rank)
    model = GPT(CONFIG, seed=0, layers=[i for stage in mine for i in layers[stage]])
    model.part_head()
    stages = {stage: lambda x, part=layers[stage]: model.stage(x, part) for stage in mine}
    loss_of = lambda states, target: model.loss_of(states, target, "sum") / COUNT
    pipeline = Pipeline(model, stages, loss_of, comm, schedule)
    pipeline.costs = costs(schedule, 1e6)  # in operations of the simulated clock
    return pipeline


def costs(schedule: Schedule, layer: float) -> Costs:
    """F, I and W of a stage: their times are proportional to its layers."""
    stage = layer * CONFIG.layers / schedule.stages
    return Costs(stage, stage, stage)


def show(comm: Communicator, name: str, pipeline: Pipeline) -> None:
    lanes = gathered(comm, pipeline.executed)
    predicted = simulate(pipeline.schedule, costs(pipeline.schedule, 1))
    clock = "a simulated" if comm.native is None else "the"
    if comm.rank == 0:
        print(f"{name} predicted: {predicted.makespan:g} long, {predicted.bubble_ratio:.1%} over "
              f"the ideal; {predicted.idle_fraction:.1%} of all time is idle, "
              f"{max(predicted.span_bubble):g} within a rank's span\n{timeline(predicted.times)}\n"
              f"{name} executed, by {clock} clock\n{timeline(lanes)}")  # fmt: skip


def main(comm: Communicator) -> None:
    one, wanted = alone()
    for name in ("1f1b", "zb-h1", "zbv"):
        pipeline = build(comm, name)
        assert pipeline.step(INPUTS, TARGETS) == wanted, "another loss"
        pipeline.module.join_head()
        for key, p in pipeline.module.named_parameters():
            assert p.grad.data.tobytes() == one.get_parameter(key).grad.data.tobytes(), key
        show(comm, name, pipeline)
        print_in_order(comm, f"{name} rank {comm.rank}: loss {wanted:.6f} and gradients of one "
                       "process, to the bit")  # fmt: skip


if __name__ == "__main__":
    launch(main, ranks=4, clock=Clock(alpha=5e-6, beta=1e-10, gamma=1e-9))
