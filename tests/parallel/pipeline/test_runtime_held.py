"""What the executor executes, sends and holds is what the schedule says."""

import weakref

import pytest
from support.pipeline_cases import FIXED, batches, make_pipeline

from minidist.autograd.versions import owner
from minidist.comm import Ledger, simulate
from minidist.parallel.pipeline.actions import FORWARD
from minidist.parallel.pipeline.run import runtime
from minidist.parallel.pipeline.schedules import make
from minidist.plan.tape import kept_behind


@pytest.mark.parametrize("kind, ranks, m, chunks", FIXED)
def test_what_was_executed_is_the_schedule(kind, ranks, m, chunks):
    schedule = make(kind, ranks, m, chunks)

    def main(comm):
        pipeline = make_pipeline(comm, "gpt", schedule)
        xs, ys, _ = batches("gpt", m, m)
        with Ledger(comm) as ledger:
            pipeline.step(xs, ys)
        own = sum(n for (name,), (n, _) in ledger.by("collective").items() if not name)
        nbytes = sum(b for (name,), (_, b) in ledger.by("collective").items() if not name)
        return [step for step, *_ in pipeline.executed], own, nbytes

    orders, messages, nbytes = zip(*simulate(main, ranks))
    assert tuple(map(tuple, orders)) == schedule.orders
    crossing = sum(map(schedule.crosses, range(schedule.stages)))
    assert sum(messages) == 2 * m * crossing
    assert sum(nbytes) == sum(messages) * 6 * 8 * 4  # (1, s, h) in float32


def live_at_most(kind, ranks, m, chunks=None):
    """Of each rank the most (stage, micro-batch) whose arrays were held at once."""
    schedule, rows = make(kind, ranks, m, chunks), 2 * m

    def main(comm):
        pipeline = make_pipeline(comm, "gpt", schedule)
        xs, ys, _ = batches("gpt", rows, m)
        given = {id(owner(t.data)) for t in (*xs, *ys)}  # what this test holds itself
        held, most = {}, [0]

        def watch(run, action):
            if action.kind == FORWARD:
                node = run.graphs[action.stage, action.microbatch][0]
                arrays = [a for _, a in kept_behind([node]) if id(a) not in given]
                held[action.stage, action.microbatch] = [weakref.ref(a) for a in arrays]
                del arrays, node
            alive = [place for place, refs in held.items() if any(r() is not None for r in refs)]
            most[0] = max(most[0], len(alive))

        pipeline.watch = watch
        pipeline.step(xs, ys)
        assert not any(r() is not None for refs in held.values() for r in refs)
        return most[0]

    return simulate(main, ranks)


def test_peak_of_live_activations_counted_in_arrays():
    assert live_at_most("gpipe", 4, 8) == [8, 8, 8, 8]
    assert live_at_most("1f1b", 4, 8) == [4, 3, 2, 1]


def test_a_runtime_that_keeps_graphs_is_seen(monkeypatch):
    kept = []
    real = runtime.backward_input, runtime.walk_back

    def keeps(roots, *args, **options):
        kept.extend(array for root, _ in roots for _, array in kept_behind([root]))
        return real[1](roots, *args, **options)

    monkeypatch.setattr(runtime, "walk_back", keeps)
    with pytest.raises(AssertionError):
        test_peak_of_live_activations_counted_in_arrays()
