"""Published bugs of the global gradient norm and of clipping, each recreated and seen."""

import math

import numpy as np
import pytest
from support.small import BOUND, computed, far, whole_gradients

from minidist.comm import all_reduce, simulate
from minidist.nn.utils import clip_grads_with_norm_
from minidist.parallel import clip_grad as clip
from minidist.parallel.layout import sharded_parameters
from minidist.parallel.mesh import Mesh
from minidist.tensor.tensor import Tensor

MAX = 0.05


def clipped(tp=None, sp=False, over=None):
    """The global norm, and the whole gradients after clipping to MAX."""
    model, _ = computed(tp, sp)
    if tp is None:
        norm = clip.clip_one_process(list(model.parameters()), MAX)
    else:
        norm = clip.clip_grad_norm_(model.parameters(), MAX, over or tp, sharded_parameters(model))
    return {"norm": np.array(norm.item()), **whole_gradients(model)}


ALONE = clipped()


def on_mesh(comm, tp, sp):
    """tp neighbours share the model out; further ranks are replicas, which have the same rows."""
    group = Mesh(dp=comm.size // tp, tp=tp).group(comm, "tp")
    return clipped(group, sp)


def the_norm_is_that_of_one_process(ranks, tp, sp):
    assert ALONE["norm"] > 2 * MAX
    found = simulate(lambda comm: on_mesh(comm, tp, sp), ranks)
    for ours in found:
        assert far(ours, ALONE) < BOUND
        assert ours["norm"] == found[0]["norm"], "ranks clip by different norms"


@pytest.mark.parametrize("ranks, tp", [(2, 2), (3, 3), (4, 4), (4, 2)])
@pytest.mark.parametrize("sp", [False, True])
def test_the_norm_is_that_of_one_process(ranks, tp, sp):
    """NVIDIA-NeMo/RL#3788, pytorch/pytorch#88955: what is whole on t ranks counted t times.

    pytorch/pytorch#72548 and #170862, pytorch/torchtitan#766: a norm of a rank's own shards.
    meta-pytorch/torchtune#2420, NVIDIA/Megatron-LM#5916: shards that the sum left out.
    ByteDance-Seed/VeOmni#184: shards summed over replicas as well.
    """
    the_norm_is_that_of_one_process(ranks, tp, sp)


def by(norm_of):
    """clip_grad_norm_ by another norm, of the gradients of (parts, wholes)."""

    def mutant(params, max_norm, comm, shared_out):
        params, held = list(params), {id(p) for p in shared_out}
        parts = [p.grad.data for p in params if id(p) in held]
        wholes = [p.grad.data for p in params if id(p) not in held]
        norm = math.sqrt(norm_of(parts, wholes, comm))
        clip_grads_with_norm_(params, max_norm, norm)
        return Tensor(norm, dtype="float64")

    return mutant


def squares(arrays):
    return sum(float((a * a).sum()) for a in arrays)


def summed(number, comm):
    return all_reduce(comm, np.array([number]))[0]


def the_right_norm(parts, wholes, comm):
    return summed(squares(parts), comm) + squares(wholes)


MUTANTS = {
    "wholes counted once a rank": lambda parts, wholes, comm: summed(squares(parts + wholes), comm),
    "a rank's own norm": lambda parts, wholes, comm: squares(parts + wholes),
    "wholes alone": lambda parts, wholes, comm: squares(wholes),
    "parts alone": lambda parts, wholes, comm: summed(squares(parts), comm),
    "a sum of norms": lambda parts, wholes, comm: (
        summed(math.sqrt(squares(parts)), comm) ** 2 + squares(wholes)
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.parametrize("sp", [False, True])
def test_a_wrong_norm_is_seen(name, sp, monkeypatch):
    monkeypatch.setattr(clip, "clip_grad_norm_", by(MUTANTS[name]))
    with pytest.raises(AssertionError):
        the_norm_is_that_of_one_process(2, 2, sp)


def test_the_right_norm_passes_as_a_mutant(monkeypatch):
    monkeypatch.setattr(clip, "clip_grad_norm_", by(the_right_norm))
    the_norm_is_that_of_one_process(2, 2, True)


def over_replicas_too(comm, tp, sp):
    group = Mesh(dp=comm.size // tp, tp=tp).group(comm, "tp")
    return clipped(group, sp, over=comm)


def test_a_sum_over_replicas_is_seen(monkeypatch):
    monkeypatch.setitem(globals(), "on_mesh", over_replicas_too)
    the_norm_is_that_of_one_process(2, 2, False)
    with pytest.raises(AssertionError):
        the_norm_is_that_of_one_process(4, 2, False)


def a_tied_weight_counts_once(ranks):
    """Its norm is that of one process, which holds it once."""
    for norm in simulate(norm_with_a_list_of_uses, ranks):
        assert norm == pytest.approx(float(ALONE["norm"]), rel=BOUND)


def norm_with_a_list_of_uses(comm):
    model, _ = computed(comm)
    return clip.clip_grad_norm_(used(model), MAX, comm, sharded_parameters(model)).item()


def used(model):
    return model.parameters()


def every_use(model):
    return [*model.parameters(), model.wte.weight]  # the lookup, and the last layer


@pytest.mark.parametrize("ranks", [2, 4])
def test_a_tied_weight_counts_once(ranks):
    """NVIDIA/Megatron-LM#7228: a tied embedding in the norm twice, so all is clipped too far."""
    a_tied_weight_counts_once(ranks)


def test_a_tied_weight_that_counts_twice_is_seen(monkeypatch):
    monkeypatch.setitem(globals(), "used", every_use)
    with pytest.raises(AssertionError):
        a_tied_weight_counts_once(2)
