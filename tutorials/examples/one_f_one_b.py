"""1F1B: each backward as soon as it can run; GPipe's bubble, but a rank holds few micro-batches.

On real ranks: mpirun -n 4 python one_f_one_b.py. On simulated ones, in turns: without mpirun.
"""

import numpy as np

from minidist import Tensor
from minidist.comm import Communicator, launch, print_in_order
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel.pipeline.cut import ranges
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.parallel.pipeline.schedules import make
from minidist.parallel.pipeline.study.simulate import simulate
from minidist.parallel.pipeline.study.timeline import gathered, timeline

CONFIG = GPTConfig(layers=4, hidden=64, heads=4, positions=32, vocab=64)
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


def run(comm: Communicator, name: str) -> tuple[Pipeline, float, int]:
    """The same by a schedule; and the most micro-batches that this rank held at once."""
    layers = ranges(CONFIG.layers, comm.size)[comm.rank]
    model = GPT(CONFIG, seed=0, layers=layers)
    model.part_head()  # where one rank has both ends
    stages = {comm.rank: lambda x: model.stage(x, layers)}
    loss_of = lambda states, target: model.loss_of(states, target, "sum") / COUNT
    pipeline, live = Pipeline(model, stages, loss_of, comm, make(name, comm.size, M)), []
    pipeline.watch = lambda run, action: live.append(len(run.graphs))  # each from its F to its B
    loss = pipeline.step(INPUTS, TARGETS)
    model.join_head()
    return pipeline, loss, max(live)


def show(comm: Communicator, name: str, pipeline: Pipeline) -> None:
    lanes = gathered(comm, pipeline.executed)
    end = max(lane[-1][2] for lane in lanes)
    busy = sum(e - s for lane in lanes for _, s, e in lane) / (comm.size * end)
    foretold, how = simulate(pipeline.schedule), "in turns" if comm.native is None else "once"
    if comm.rank == 0:
        print(f"{name} foretold, F 1 and B 2 long: idle {foretold.idle_fraction:.1%} of all time, "
              f"{foretold.bubble_ratio:.1%} over the ideal\n{timeline(foretold.times)}\n"
              f"{name} executed {how}: idle {1 - busy:.1%}\n{timeline(lanes)}")  # fmt: skip


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
    launch(main, ranks=4)
