"""Zero bubble: backward in two halves, I for the rank before at once, W when there is time.

On real ranks: mpirun -n 4 python zero_bubble.py. On simulated ones, in turns: without mpirun.
"""

import numpy as np

from minidist import Tensor
from minidist.comm import Communicator, launch, print_in_order
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.parallel.pipeline.schedules import make
from minidist.parallel.pipeline.study.costs import Costs
from minidist.parallel.pipeline.study.simulate import simulate
from minidist.parallel.pipeline.study.timeline import gathered, timeline

CONFIG = GPTConfig(layers=8, hidden=48, heads=4, positions=32, vocab=64)
M, COUNT = 8, 8 * 4 * 32  # micro-batches; and tokens of all of them, by which sums are divided
TOKENS = np.random.default_rng(0).integers(0, CONFIG.vocab, (M, 4, 33))
INPUTS, TARGETS = ([Tensor(x.copy()) for x in t] for t in (TOKENS[..., :-1], TOKENS[..., 1:]))


def alone() -> tuple[GPT, float]:
    """One process: gradients add up over the micro-batches, and so does the loss."""
    model, total = GPT(CONFIG, seed=0), 0.0
    model.part_head()  # the tied embedding's two uses add up apart, as on two ranks
    for x, y in zip(INPUTS, TARGETS):
        loss = model.loss(x, y, "sum") / COUNT
        loss.backward()
        total += loss.item()
    model.join_head()
    return model, total


def build(comm: Communicator, name: str) -> Pipeline:
    """In stages, by a schedule: zbv has two on each rank, and rank 0 the first and the last."""
    schedule = make(name, comm.size, M)
    layers, mine = ranges(CONFIG.layers, schedule.stages), schedule.stages_of(comm.rank)
    model = GPT(CONFIG, seed=0, layers=[i for stage in mine for i in layers[stage]])
    model.part_head()
    stages = {stage: lambda x, part=layers[stage]: model.stage(x, part) for stage in mine}
    loss_of = lambda states, target: model.loss_of(states, target, "sum") / COUNT
    return Pipeline(model, stages, loss_of, comm, schedule)


def show(comm: Communicator, name: str, pipeline: Pipeline) -> None:
    lanes = gathered(comm, pipeline.executed)
    layers = CONFIG.layers / pipeline.schedule.stages  # of a stage; each one's F, I and W take 1
    foretold = simulate(pipeline.schedule, Costs(layers, layers, layers))
    if comm.rank == 0:
        print(f"{name} foretold: {foretold.makespan:g} long, {foretold.bubble_ratio:.1%} over the "
              f"ideal; {foretold.idle_fraction:.1%} of all time is idle, "
              f"{max(foretold.span_bubble):g} within a rank's span\n{timeline(foretold.times)}\n"
              f"{name} executed{' in turns' * (not comm.native)}\n{timeline(lanes)}")  # fmt: skip


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
    launch(main, ranks=4)
