"""The simulator's times are the executor's, step by step, on the clock of simulated ranks."""

from contextlib import nullcontext

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from minidist import nn
from minidist.comm import Clock
from minidist.comm import simulate as on_ranks
from minidist.ops.op import differentiable
from minidist.parallel.pipeline.actions import SENDS
from minidist.parallel.pipeline.run import runtime
from minidist.parallel.pipeline.run.runtime import Pipeline
from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.parallel.pipeline.study.simulate import Costs, simulate
from minidist.tensor.tensor import Tensor

START = 4096.0  # all ranks begin then; sums of dyadic numbers are exact
NUMBERS = 8  # float32 that go over a boundary


@differentiable(autocast="fallthrough")
def _costly(x, weight, comm, costs):
    """x · weight, which takes as long as it is told each way."""
    comm.compute(costs[0])

    def of_input(g):
        comm.compute(costs[1])
        return g * weight

    def of_weight(g):
        comm.compute(costs[2])
        return (g * x).sum(0)

    return x * weight, of_input, of_weight


class Costly(nn.Module):
    def __init__(self, comm, costs):
        self.comm, self.costs = comm, costs
        self.weight = nn.Parameter(np.ones(NUMBERS, "f4"))
        self.free = nn.Parameter(np.zeros(NUMBERS, "f4"))

    def forward(self, x):
        """Costs nothing at first: so the first stage, too, has a way back to go."""
        return _costly(x + self.free, self.weight, self.comm, self.costs)


def executed(schedule, costs, alpha, beta, of_steps=None):
    """(step, start, end) of every rank, and when it was done; the pipeline may be given costs."""

    def main(comm):
        mine = schedule.stages_of(comm.rank)
        stages = {s: Costly(comm, [c[s] for c in costs]) for s in mine}
        module = nn.ModuleDict({f"s{s}": stage for s, stage in stages.items()})
        total = lambda y, target: y.sum()
        pipeline = Pipeline(module, stages, total, comm, schedule)
        pipeline.costs = of_steps
        xs = [Tensor(np.ones((1, NUMBERS), "f4")) for _ in range(schedule.microbatches)]
        pipeline.shapes.agree(xs, nullcontext)
        comm.compute(START - comm.time())
        pipeline._loss = lambda run: comm.time()
        return pipeline.step(xs, xs), pipeline.executed

    return on_ranks(main, schedule.ranks, clock=Clock(alpha, beta, gamma=1.0))


def assert_predicted(schedule, costs, alpha, beta, of_steps=None):
    predicted = simulate(schedule, of_steps or Costs(*costs), alpha, beta, 4 * NUMBERS)
    for rank, (_, steps) in enumerate(executed(schedule, costs, alpha, beta, of_steps)):
        found = [(step, start - START, end - START) for step, start, end in steps]
        assert found == [tuple(s) for s in predicted.times[rank]], f"rank {rank}"


@pytest.mark.parametrize("alpha, beta", [(0.0, 0.0), (0.25, 2.0**-6)])
@pytest.mark.parametrize("name", NAMES)
def test_each_schedule_takes_the_time_that_was_predicted(name, alpha, beta):
    schedule = make(name, 3, 6)
    costs = [[1.0] * schedule.stages, [1.5] * schedule.stages, [0.5] * schedule.stages]
    assert_predicted(schedule, costs, alpha, beta)


@pytest.mark.parametrize("name", NAMES)
def test_a_pipeline_that_is_given_costs_takes_them(name):
    """Its layers know nothing of a clock."""
    schedule = make(name, 3, 6)
    free, given = [[0.0] * schedule.stages] * 3, Costs(1.0, 1.5, 0.5, overlap=2.25)
    assert_predicted(schedule, free, 0.25, 2.0**-6, given)


QUARTERS = st.integers(0, 12).map(lambda n: n / 4)


@given(st.sampled_from(NAMES), st.integers(1, 4), st.integers(1, 3), QUARTERS,
       st.integers(0, 8).map(lambda n: n * 2.0**-7), st.data())  # fmt: skip
@settings(deadline=None, max_examples=25, suppress_health_check=list(HealthCheck))
def test_of_any_costs(name, ranks, rounds, alpha, beta, data):
    schedule = make(name, ranks, rounds * ranks * (2 if name == "dualpipev" else 1))
    each = st.lists(QUARTERS, min_size=schedule.stages, max_size=schedule.stages)
    assert_predicted(schedule, [data.draw(each) for _ in range(3)], alpha, beta)


def test_an_executor_that_sends_otherwise_is_seen(monkeypatch):
    """The control: sends that wait until they are received take other times."""

    def waits(self, action):
        message = action.received
        self.comm.ssend(
            self.buffers.pop(message), self.rank_of[message.stage], runtime._tag(message)
        )

    schedule = make("1f1b", 3, 6)
    costs = [[1.0] * 3, [1.0] * 3, [1.0] * 3]
    assert_predicted(schedule, costs, 0.25, 0.0)
    for kind in SENDS:
        monkeypatch.setitem(runtime.HANDLERS, kind, waits)
    with pytest.raises(AssertionError, match="rank"):
        assert_predicted(schedule, costs, 0.25, 0.0)
