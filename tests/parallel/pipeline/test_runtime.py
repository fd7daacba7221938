"""Every schedule has the bits of one process that accumulates, and holds what it says."""

import weakref
from collections import Counter
from functools import cache, partial
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pipeline_cases import SIZES, accumulated, assert_same, batches, make_pipeline, piped

from minidist.comm import Ledger, simulate
from minidist.errors import UserError
from minidist.parallel.pipeline import runtime
from minidist.parallel.pipeline.actions import BACKWARD, FORWARD, WEIGHT, Schedule
from minidist.parallel.pipeline.messages import with_messages
from minidist.parallel.pipeline.schedules import NAMES, make
from minidist.parallel.pipeline.validate import ScheduleError
from minidist.plan.tape import kept_behind
from minidist.saved import owner
from minidist.tensor import Tensor

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


FIXED = [
    ("gpipe", 4, 8, None), ("1f1b", 4, 8, None), ("interleaved", 2, 8, 4), ("zb-h1", 4, 8, None),
    ("zb-h1", 2, 4, 2), ("zb-h2", 4, 8, None), ("zbv", 4, 8, None), ("dualpipev", 2, 8, None),
    ("1f1b", 8, 8, None), ("1f1b", 3, 8, None),
]  # fmt: skip


@pytest.mark.parametrize("name", SIZES)
@pytest.mark.parametrize("kind, ranks, m, chunks", FIXED)
def test_each_schedule_and_model(name, kind, ranks, m, chunks):
    found = on_ranks(name, make(kind, ranks, m, chunks), 11)
    assert_same(found, one_process(name, 11, m))


def test_every_degree_of_pipeline_parallelism():
    for ranks in range(1, 9):
        assert_same(on_ranks("gpt", make("1f1b", ranks, 4), 5), one_process("gpt", 5, 4))


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


def stale_input(run, stage, i, real=runtime.Run._forward):
    """A buffer used twice: the second micro-batch's input in place of the third's."""
    for key, array in list(run.here.items()):
        if key[0] == "RECV_F" and key[1:] == (stage, 2):
            run.here[key] = np.roll(array, 1, 0)
    real(run, stage, i)


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


# What is executed, sent and held


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


# Evaluation


@pytest.mark.parametrize(
    "kind, ranks, chunks", [("1f1b", 3, 1), ("zbv", 2, 2), ("interleaved", 2, 2)]
)
def test_evaluation_and_outputs_through_the_stages(kind, ranks, chunks):
    schedule = make(kind, ranks, 4, chunks)

    def main(comm):
        pipeline = make_pipeline(comm, "cnn", schedule)
        pipeline.module.eval()
        found = []
        for m in (1, 5):
            xs, ys, _ = batches("cnn", 10, m)
            loss, outputs = pipeline.evaluate(xs, ys), pipeline.forward(xs)
            found.append((loss, outputs and [y.data.tobytes() for y in outputs]))
        assert all(p.grad is None for p in pipeline.module.parameters())
        return found, pipeline.last

    alone = simulate(lambda comm: plain_outputs(), 1)[0]
    results = simulate(main, ranks, seed=2)
    for rank, (found, last) in enumerate(results):
        for (loss, outputs), (want, whole) in zip(found, alone):
            assert loss == want
            assert outputs == (whole if rank == last else None)


def plain_outputs():
    from pipeline_cases import PARTS, ranges, sum_of_losses

    module, stages, _ = PARTS["cnn"](ranges(8, 1), [0])
    module.eval()
    found = []
    for m in (1, 5):
        xs, ys, _ = batches("cnn", 10, m)
        outputs = [stages[0](x) for x in xs]
        losses = [sum_of_losses(y, t).item() for y, t in zip(outputs, ys)]
        found.append((sum(losses), [y.data.tobytes() for y in outputs]))
    return found


def test_shapes_are_agreed_once(monkeypatch):
    """A second step with the same shapes asks nothing; new ones are asked for once."""
    counts = Counter()

    def main(comm):
        pipeline = make_pipeline(comm, "cnn", make("1f1b", 2, 2))
        before = {n: b.data.copy() for n, b in pipeline.module.named_buffers()}
        for rows in (4, 4, 5, 5, 4):
            xs, ys, _ = batches("cnn", rows, 2)
            with Ledger(comm) as ledger:
                pipeline.evaluate(xs, ys)
            counts[rows] += ledger.by("collective").get(("broadcast",), (0, 0))[0]
        after = {n: b.data for n, b in pipeline.module.named_buffers()}
        return all((before[n] == after[n]).all() for n in before) or pipeline.module.training

    simulate(main, 2)
    # a broadcast of each loss, and of two stages' shapes for 2 rows, then 3
    assert counts == {4: 3 + 2, 5: 2 + 2}


# What is wrong is said


def raises(main, ranks, kind, match):
    with pytest.raises(kind, match=match):
        simulate(main, ranks)


def test_bad_use_is_refused():
    schedule = make("1f1b", 2, 4)
    xs, ys, _ = batches("cnn", 8, 3)
    raises(lambda c: make_pipeline(c, "cnn", schedule).step(xs, ys), 2, ValueError,
           "3 micro-batches and 3 targets for a schedule of 4")  # fmt: skip
    raises(lambda c: make_pipeline(c, "cnn", make("1f1b", 3, 4)), 2, ValueError,
           "a schedule of 3 ranks on 2")  # fmt: skip
    raises(lambda c: make_pipeline(c, "cnn", schedule, [9, 1]), 2, UserError, "8 together")

    def others(comm):
        pipeline = make_pipeline(comm, "cnn", schedule)
        return runtime.Pipeline(pipeline.module, {5: lambda x: x}, lambda y, t: y, comm, schedule)

    raises(others, 2, ValueError, r"was given stages \[5\]")

    def two_outputs(comm):
        pipeline = make_pipeline(comm, "cnn", schedule)
        pipeline.shapes.stages = pipeline.stages = {comm.rank: lambda x: (x, x)}
        xs, ys, _ = batches("cnn", 8, 4)
        pipeline.step(xs, ys)

    raises(two_outputs, 2, TypeError, "a stage makes one Tensor")


def test_frozen_stages_pass_gradients_on():
    """A first stage that is frozen has no graph; one in the middle hands its gradient back."""

    def main(comm, frozen):
        pipeline = make_pipeline(comm, "lstm", make("zb-h1", comm.size, 4))
        if comm.rank == frozen:
            pipeline.module.requires_grad_(False)
        xs, ys, _ = batches("lstm", 8, 4)
        pipeline.step(xs, ys)
        return {n: p.grad is not None for n, p in pipeline.module.named_parameters()}

    for frozen in (0, 1):
        for rank, grads in enumerate(simulate(partial(main, frozen=frozen), 3)):
            assert set(grads.values()) <= {rank != frozen}


def test_nothing_is_left_after_a_step():
    def main(comm):
        pipeline = make_pipeline(comm, "cnn", make("zbv", 2, 4))
        xs, ys, _ = batches("cnn", 8, 4)
        runs = []
        pipeline.watch = lambda run, action: runs.append(run) if not runs else None
        pipeline.step(xs, ys)
        run = runs[0]
        return [run.graphs, run.deferred, run.here, run.receiving]

    assert simulate(main, 2) == [[{}, {}, {}, {}]] * 2


def test_hooks_of_gradients_see_them_whole():
    """A parameter's hook that sums over replicas runs in a stage's last backward alone."""

    def main(comm):
        pipeline = make_pipeline(comm, "lstm", make("1f1b", 2, 4))
        from minidist.comm.alone import Alone
        from minidist.parallel.data import Naive

        pipeline.gradients = Naive(pipeline.module.parameters(), Alone())
        seen = []
        for p in pipeline.module.parameters():
            p.register_post_accumulate_grad_hook(lambda p: seen.append(pipeline.gradients.paused))
        xs, ys, _ = batches("lstm", 8, 4)
        pipeline.step(xs, ys)
        n = len(list(pipeline.module.parameters()))
        return Counter(seen) == {True: 3 * n, False: n}

    assert simulate(main, 2) == [True, True]


def test_a_tensor_of_one_number_is_what_a_criterion_gives():
    def main(comm):
        pipeline = make_pipeline(comm, "cnn", make("1f1b", 1, 1))
        pipeline.criterion = lambda y, t: y
        pipeline.step([Tensor(np.ones((2, 1, 8, 8), "f4"))], [Tensor(np.zeros(2, int))])

    raises(main, 1, RuntimeError, "needs one element")


@pytest.mark.proof
@given(runs())
@settings(few, max_examples=300)
def test_many_more_schedules_are_accumulation_to_the_bit(run):
    test_any_schedule_is_accumulation_to_the_bit.hypothesis.inner_test(run)
