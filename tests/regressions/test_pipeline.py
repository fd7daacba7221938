"""Published bugs of pipelines: their weights, norms and losses, each recreated and seen."""

from unittest import mock

import numpy as np
import pytest
from support.stages import ALONE, FEW, accumulated, near, on_ranks, piped, stepped, told

from minidist.comm import broadcast, simulate
from minidist.comm.comm_self import CommSelf
from minidist.nn.utils import clip_grads_with_norm_
from minidist.parallel import clip_grad as clip
from minidist.parallel.pipeline.needs import receive_for
from minidist.parallel.pipeline.run.runtime import HANDLERS, Pipeline, Run, Tied
from minidist.parallel.pipeline.schedules import NAMES

# Micro-batches in which not all tokens count


def each_token_weighs_the_same(ranks, kind):
    near(simulate(lambda comm: stepped(piped(comm, kind), FEW), ranks), told(*accumulated(FEW)))


@pytest.mark.parametrize("kind", NAMES)
def test_each_token_weighs_the_same(kind):
    """pytorch/torchtitan#2972: gradients of a pipeline not divided by the global token count.

    Micro-batches with 0, 1 and 14 tokens that count.
    """
    each_token_weighs_the_same(2, kind)


def undivided(run, steps):
    run.scale = 1.0
    return EXECUTE(run, steps)


def by_its_own_tokens(run, steps):
    counts = [(t.data != -100).sum() for t in run.targets]
    share = [1 / (max(n, 1) * len(counts)) for n in counts]
    real, run.scale = run.pipeline.criterion, 1.0
    numbers = {id(t): s for t, s in zip(run.targets, share)}
    with mock.patch.object(run.pipeline, "criterion", lambda y, t: real(y, t) * numbers[id(t)]):
        return EXECUTE(run, steps)


EXECUTE = Run.execute


@pytest.mark.parametrize("mutant", [undivided, by_its_own_tokens])
def test_another_weight_is_seen(mutant, monkeypatch):
    monkeypatch.setattr(Run, "execute", mutant)
    with pytest.raises(AssertionError):
        each_token_weighs_the_same(2, "1f1b")


# The number of micro-batches


def the_loss_does_not_depend_on_m(ranks, *ms):
    for m in ms:
        near(on_ranks(ranks, "1f1b", m), ALONE)


def test_the_loss_does_not_depend_on_m():
    """NVIDIA/Megatron-LM#673, #906, #2217, #3959, #5047: a loss scaled by micro-batches, or not."""
    the_loss_does_not_depend_on_m(2, 1, 2, 4, 8)


def mean_of_each(run, steps):
    run.scale *= len(run.inputs)
    return EXECUTE(run, steps)


def test_a_loss_that_grows_with_m_is_seen(monkeypatch):
    monkeypatch.setattr(Run, "execute", mean_of_each)
    the_loss_does_not_depend_on_m(2, 1)
    with pytest.raises(AssertionError):
        the_loss_does_not_depend_on_m(2, 2)


# The tied embedding, and the norm of all stages' gradients

MAX = 0.05


def clipped(model, loss, stages=None, counted=()):
    """Loss, norm, and gradients clipped to MAX: as bytes, for they are to be one process's."""
    norm = clip.clip_grad_norm_(
        model.parameters(), MAX, CommSelf(), stages=stages, counted=counted
    ).item()
    assert norm > 2 * MAX
    numbers = {**told(model, loss), "norm": np.array(norm)}
    return {name: a.tobytes() for name, a in numbers.items()}


def clipped_on(comm, kind):
    pipeline = piped(comm, kind, dtype="float32")
    loss = stepped(pipeline)["loss"]
    return clipped(pipeline.module, loss, comm, pipeline.tied.counted)


def all_clip_as_one_process(ranks, kind):
    """One norm on all ranks, and one embedding on the two that have it."""
    for ours in simulate(lambda comm: clipped_on(comm, kind), ranks):
        assert ours == {name: CLIPPED[name] for name in ours}


CLIPPED = clipped(*accumulated(m=4, dtype="float32"))


@pytest.mark.parametrize("ranks, kind", [(2, "1f1b"), (4, "gpipe"), (4, "zbv"), (8, "zb-h1")])
def test_all_clip_as_one_process(ranks, kind):
    """huggingface/nanotron checks its tied weights; NVIDIA/Megatron-LM sums them before it clips.

    pytorch/torchtitan#2972 and #766, pytorch/pytorch#170862: norms of a stage's own parameters.
    NVIDIA/Megatron-LM#7228: a tied embedding in the norm of both of its stages.
    """
    all_clip_as_one_process(ranks, kind)


CLIP = clip.clip_grad_norm_
MUTANTS = {
    "a stage's own norm": lambda own, stages, counted: {},
    "a tied weight counted twice": lambda own, stages, counted: {"stages": stages},
    "a tied weight not counted": lambda own, stages, counted: {
        "stages": stages, "counted": [p for p in own if p.shape == (13, 8)]
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_norm_is_seen(name, monkeypatch):
    def mutant(params, max_norm, comm, **options):
        own = list(params)
        return CLIP(own, max_norm, comm, **MUTANTS[name](own, **options))

    monkeypatch.setattr(clip, "clip_grad_norm_", mutant)
    with pytest.raises(AssertionError):
        all_clip_as_one_process(2, "1f1b")


def summed_twice(self):
    SUM(self)
    SUM(self)


def never_summed(self):
    return None


SUM = Tied.sum_gradients


@pytest.mark.parametrize("mutant", [summed_twice, never_summed])
def test_a_tied_embedding_not_summed_once_is_seen(mutant, monkeypatch):
    monkeypatch.setattr(Tied, "sum_gradients", mutant)
    with pytest.raises(AssertionError):
        all_clip_as_one_process(2, "1f1b")


def clips_twice(params, max_norm, *args, **options):
    params = list(params)
    norm = CLIP(params, max_norm, *args, **options)
    clip_grads_with_norm_([p for p in params if p.shape == (13, 8)], max_norm, norm.item())
    return norm


def test_a_tied_embedding_clipped_twice_is_seen(monkeypatch):
    monkeypatch.setattr(clip, "clip_grad_norm_", clips_twice)
    with pytest.raises(AssertionError):
        all_clip_as_one_process(2, "1f1b")


# The loss that is reported, and every degree


def every_degree_reports_the_loss(*degrees):
    for ranks in degrees:
        found = on_ranks(ranks, "1f1b", 4)
        assert len({float(ours["loss"]) for ours in found}) == 1, "another loss by rank"
        near(found, ALONE)


@pytest.mark.parametrize("ranks", range(1, 9))
def test_every_degree_runs_and_reports_the_loss(ranks):
    """hpcaitech/ColossalAI#4705 and #6110: a stage beyond the first has no input.

    pytorch/torchtitan#547, huggingface/nanotron#405, hpcaitech/ColossalAI#5683: the loss of another
    stage than the last, or of one rank alone.
    """
    every_degree_reports_the_loss(ranks)


def of_its_own(pipeline, run):
    return float(sum(run.losses.values()))


def of_the_first(pipeline, run):
    total = np.array([sum(run.losses.values(), 0.0)])
    return float(broadcast(pipeline.comm, total, root=0)[0])


@pytest.mark.parametrize("mutant", [of_its_own, of_the_first])
def test_the_loss_of_another_stage_is_seen(mutant, monkeypatch):
    monkeypatch.setattr(Pipeline, "_loss", mutant)
    every_degree_reports_the_loss(1)
    with pytest.raises(AssertionError):
        every_degree_reports_the_loss(2)


def without_input(run, action):
    if action.stage:
        message = receive_for(action)
        run.buffers[message] = np.zeros_like(run.buffers[message])
    FORWARD(run, action)


FORWARD = HANDLERS["F"]


def test_a_stage_without_its_input_is_seen(monkeypatch):
    monkeypatch.setitem(HANDLERS, "F", without_input)
    every_degree_reports_the_loss(1)
    with pytest.raises(AssertionError):
        every_degree_reports_the_loss(2)
