"""Every schedule has the bits of one process that accumulates, and holds what it says."""

from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.pipeline_cases import FIXED, SIZES, accumulated, assert_same, piped

from minidist.comm import simulate
from minidist.parallel.pipeline.actions import BACKWARD, FORWARD, WEIGHT, Schedule
from minidist.parallel.pipeline.check.messages import with_messages
from minidist.parallel.pipeline.check.validate import ScheduleError
from minidist.parallel.pipeline.run import runtime
from minidist.parallel.pipeline.schedules import NAMES, make

one_process = cache(accumulated)
few = settings(deadline=None, max_examples=12, suppress_health_check=list(HealthCheck))


def on_ranks(name, schedule, rows, split=None, **options):
    return simulate(
        lambda comm: piped(comm, name, schedule, rows, split), schedule.ranks, **options
    )


@st.composite
def runs(draw):
    """A model, a schedule that it can have, an uneven split, rows, and an order of ranks."""
    name, kind = draw(st.sampled_from(sorted(SIZES))), draw(st.sampled_from(NAMES))
    chunks = {"interleaved": (2, 4), "zb-h1": (1, 4), "zbv": (2, 2), "dualpipev": (2, 2)}
    v = draw(st.integers(*chunks.get(kind, (1, 1))))
    ranks = draw(st.integers(1, min(4, 8 // v)))
    rounds = draw(st.integers(1, 3)) * ranks
    m = rounds if v > 1 else draw(st.integers(1, 7))
    m = max(m, 2 * ranks) if kind == "dualpipev" else m
    stages = ranks * v
    cuts = draw(st.permutations(range(1, SIZES[name])))[: stages - 1]
    edges = [0, *sorted(cuts), SIZES[name]]
    split = [b - a for a, b in pairwise(edges)]
    return (
        name,
        make(kind, ranks, m, v),
        m + draw(st.integers(0, m)),
        split,
        draw(st.integers(0, 9)),
    )


@given(runs())
@few
def test_any_schedule_is_accumulation_to_the_bit(run):
    name, schedule, rows, split, seed = run
    found = on_ranks(name, schedule, rows, split, seed=seed)
    assert_same(found, one_process(name, rows, schedule.microbatches))


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind, ranks, m, chunks", FIXED)
def test_each_schedule_and_model(name, kind, ranks, m, chunks):
    found = on_ranks(name, make(kind, ranks, m, chunks), 11)
    assert_same(found, one_process(name, 11, m))


def test_every_degree_of_pipeline_parallelism():
    for ranks in range(1, 9):
        assert_same(on_ranks("gpt", make("1f1b", ranks, 4), 5), one_process("gpt", 5, 4))


@pytest.mark.proof
@given(runs())
@settings(few, max_examples=300)
def test_many_more_schedules_are_accumulation_to_the_bit(run):
    test_any_schedule_is_accumulation_to_the_bit.hypothesis.inner_test(run)


def test_with_synchronous_sends(monkeypatch):
    """Every schedule completes, with the same bits, if no message is ever buffered."""
    from minidist.comm.communicator import Communicator

    isend = Communicator.isend

    def issend(self, array, dest, tag=0, synchronous=False):
        return isend(self, array, dest, tag, synchronous=True)

    monkeypatch.setattr(Communicator, "isend", issend)
    for kind, ranks, m, chunks in FIXED:
        found = on_ranks("gpt", make(kind, ranks, m, chunks), 8, eager_limit=1 << 20, seed=1)
        assert_same(found, one_process("gpt", 8, m))


# Controls: the same assertion sees what is wrong


def without_validation(monkeypatch):
    monkeypatch.setattr(runtime, "validate", with_messages)


def changed(schedule, change):
    return Schedule(tuple(tuple(change(r, list(o))) for r, o in enumerate(schedule.orders)))


def lifo(rank, order):
    forward = [a for a in order if a.kind == FORWARD]
    return forward + [a for a in reversed(order) if a.kind == BACKWARD]


def drop_a_weight(rank, order):
    late = [a for a in order if a.kind == WEIGHT and a.microbatch == 2]
    return [a for a in order if a not in late]


@pytest.mark.parametrize("kind, change", [("gpipe", lifo), ("zb-h1", drop_a_weight)])
def test_an_order_that_is_wrong_is_refused_and_would_be_seen(kind, change, monkeypatch):
    wrong = changed(make(kind, 2, 4), change)
    with pytest.raises(ScheduleError):
        on_ranks("gpt", wrong, 8)
    without_validation(monkeypatch)
    with pytest.raises(AssertionError, match=r"differs|want"):
        assert_same(on_ranks("gpt", wrong, 8), one_process("gpt", 8, 4))


def forgets_tied(self):
    return None


def stale_input(run, action, real=runtime.Run._forward):
    """A buffer used twice: the second micro-batch's input in place of the third's."""
    for message, array in list(run.buffers.items()):
        if message == (action.stage, "RECV_F", 2):
            run.buffers[message] = np.roll(array, 1, 0)
    real(run, action)


def own_loss(pipeline, run):
    return float(sum(run.losses.values()))


def one_mask(run, steps, real=runtime.Run.execute):
    around = run.around
    run.around = lambda i: around(0)
    return real(run, steps)


MUTANTS = {
    "the tied embedding is not summed": (runtime.Tied, "sum_gradients", forgets_tied),
    "an activation of others": (runtime.HANDLERS, "F", stale_input),
    "the loss of this stage": (runtime.Pipeline, "_loss", own_loss),
    "one mask for all micro-batches": (runtime.Run, "execute", one_mask),
}


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutants_are_seen(mutant, monkeypatch):
    place, name, replacement = MUTANTS[mutant]
    patch = monkeypatch.setitem if isinstance(place, dict) else monkeypatch.setattr
    patch(place, name, replacement)
    with pytest.raises(AssertionError, match=r"differs|want"):
        assert_same(on_ranks("gpt", make("1f1b", 2, 4), 8), one_process("gpt", 8, 4))
