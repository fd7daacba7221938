"""A pipeline in use: evaluation, shapes agreed once, frozen stages, hooks; misuse is refused."""

from collections import Counter
from functools import partial

import numpy as np
import pytest
from support.pipeline_cases import batches, evaluated, make_pipeline

from minidist.comm import Ledger, simulate
from minidist.errors import UserError
from minidist.parallel.pipeline.run import runtime
from minidist.parallel.pipeline.schedules import make
from minidist.tensor.tensor import Tensor


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

    alone = evaluated((1, 5))
    results = simulate(main, ranks, seed=2)
    for rank, (found, last) in enumerate(results):
        for (loss, outputs), (want, whole) in zip(found, alone):
            assert loss == want
            assert outputs == (whole if rank == last else None)


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
        return [run.graphs, run.deferred, run.buffers, run.receiving]

    assert simulate(main, 2) == [[{}, {}, {}, {}]] * 2


def test_hooks_of_gradients_see_them_whole():
    """A parameter's hook that sums over replicas runs in a stage's last backward alone."""

    def main(comm):
        pipeline = make_pipeline(comm, "lstm", make("1f1b", 2, 4))
        from minidist.comm.comm_self import CommSelf
        from minidist.parallel.data.sum_gradients import Naive

        pipeline.gradients = Naive(pipeline.module.parameters(), CommSelf())
        seen = []
        for p in pipeline.module.parameters():
            p.register_post_accumulate_grad_hook(
                lambda p: seen.append(not pipeline.gradients.require_backward_grad_sync)
            )
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
