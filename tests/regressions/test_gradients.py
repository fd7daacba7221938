"""Published bugs of gradients on several ranks, each recreated and seen."""

import numpy as np
import pytest
from support import small
from support.small import ALONE, BOUND, built, far, outcome

from minidist import data, nn, random
from minidist.comm import simulate
from minidist.models.gpt import GPT, Block
from minidist.nn import functional as F
from minidist.parallel import sequence
from minidist.parallel.data.sum_gradients import Bucketed
from minidist.parallel.layout import load_full_state_dict
from minidist.parallel.tensor import linear as tensor
from minidist.tensor.tensor import Tensor
from minidist.train.config import TrainConfig
from minidist.train.loop import Trainer

RNG = np.random.default_rng(2)


# The mean over uneven ranks

CONFIG = TrainConfig(model="gpt-nano", steps=2, batch=5, seq=6, warmup=1, dtype="float64")
CORPUS = data.Corpus(RNG.integers(0, 256, 400), RNG.integers(0, 256, 40))


def curve(ranks):
    """Losses and gradient norms of a run."""
    run = lambda comm: list(Trainer(CONFIG, comm, CORPUS).run(0, 0))
    return np.array([[r["loss"], r["grad_norm"]] for r in simulate(run, ranks)[0]])


def uneven_rows_train_as_one_process(ranks):
    assert CONFIG.batch % ranks
    np.testing.assert_allclose(curve(ranks), CURVE, rtol=1e-10)


CURVE = curve(1)


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_uneven_rows_train_as_one_process(ranks):
    """meta-pytorch/torchtune#1875 and #1917, pytorch/torchtitan#2206: a mean of ranks' means.

    pytorch/torchtitan#2318: averaged over ranks what the global count had divided already.
    """
    uneven_rows_train_as_one_process(ranks)


def mean_of_means(self, x, y, reduction):
    return sum_of_means(self, x, y, reduction) / 2  # ranks


def sum_of_means(self, x, y, reduction):
    return LOSS(self, x, y, reduction) / x.numel() * (CONFIG.batch * CONFIG.seq)


def averaged_again(self, grads):
    SUM(self, grads)
    for g in grads:
        g /= self.comm.size


LOSS, SUM = GPT.loss, Bucketed._sum


@pytest.mark.parametrize(
    "where, name, mutant",
    [
        (GPT, "loss", mean_of_means),
        (GPT, "loss", sum_of_means),
        (Bucketed, "_sum", averaged_again),
    ],
)
def test_another_mean_is_seen(where, name, mutant, monkeypatch):
    monkeypatch.setattr(where, name, mutant)
    with pytest.raises(AssertionError):
        uneven_rows_train_as_one_process(2)


# Parts of gradients under sequence parallelism


def what_is_whole_gets_the_whole_gradient(ranks):
    for ours in simulate(lambda comm: outcome(comm, sp=True), ranks):
        assert far(ours, ALONE) < BOUND


@pytest.mark.parametrize("ranks", [2, 3, 4])
def test_what_is_whole_gets_the_whole_gradient(ranks):
    """NVIDIA/Megatron-LM#1446, #7452 item 11: norms with the gradient of a rank's tokens alone."""
    what_is_whole_gets_the_whole_gradient(ranks)


def norms_alone(model):
    names = {id(p): name for name, p in model.named_parameters()}
    return [p for p in PARTIAL(model) if "ln_" in names[id(p)]]


PARTIAL = sequence.partial_parameters


@pytest.mark.parametrize(
    "name, mutant",
    [
        ("sum_partial", lambda params, comm: None),
        ("partial_parameters", norms_alone),  # and not the biases after the sum, nor positions
        ("partial_parameters", lambda model: PARTIAL(model)[:-2]),  # the last norm is forgotten
    ],
)
def test_parts_that_are_not_summed_are_seen(name, mutant, monkeypatch):
    monkeypatch.setattr(sequence, name, mutant)
    with pytest.raises(AssertionError):
        what_is_whole_gets_the_whole_gradient(2)


# A row-parallel layer's bias

WIDE = {"weight": RNG.integers(-4, 5, (3, 8)).astype(float), "bias": np.array([1.0, 2.0, 3.0])}
X = RNG.integers(-4, 5, (2, 5, 8)).astype(float)


def row_parallel(comm):
    layer = tensor.RowParallelLinear(8, 3, comm=comm, dtype="float64")
    load_full_state_dict(layer, WIDE)
    return layer(Tensor(layer.shards["weight"].take(X.reshape(10, 8)))).data


def a_bias_is_added_once(ranks):
    wanted = X.reshape(10, 8) @ WIDE["weight"].T + WIDE["bias"]
    for y in simulate(row_parallel, ranks):
        np.testing.assert_array_equal(y, wanted)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_bias_is_added_once(ranks):
    """The bias within each rank's product is summed t times: on whole numbers, to the bit."""
    a_bias_is_added_once(ranks)


def on_every_rank(self, input):
    return tensor.reduce_partial(F.linear(input, self.weight, self.bias), self.comm, self.tokens)


def test_a_bias_on_every_rank_is_seen(monkeypatch):
    monkeypatch.setattr(tensor.RowParallelLinear, "forward", on_every_rank)
    a_bias_is_added_once(1)
    with pytest.raises(AssertionError):
        a_bias_is_added_once(2)


# The way around each branch


def slopes(comm):
    """Of the loss along a direction of all parameters: by backward, and by difference."""
    model, eps = built(comm), 1e-5
    directions = {
        name: random.generator(0, name).standard_normal(p.shape)
        for name, p in model.named_parameters()
    }

    def loss(step):
        for name, p in model.named_parameters():
            p.data += step * directions[name]
        with random.at(0, 0, 0):
            return model.loss(Tensor(small.TOKENS), Tensor(small.TARGETS))

    loss(0).backward()
    slope = sum((p.grad.data * directions[n]).sum() for n, p in model.named_parameters())
    return slope, (loss(eps).item() - loss(-2 * eps).item()) / (2 * eps)


def the_gradient_is_the_slope():
    slope, difference = slopes(None)
    assert abs(slope / difference - 1) < 1e-6


def test_the_gradient_is_the_slope():
    """lweitkamp/numpitron: a block whose backward forgot what goes around its branches."""
    the_gradient_is_the_slope()


def not_around(self, x):
    heads = F.packed_attention(self.c_attn(self.ln_1(x)), self.heads, is_causal=True)
    x = x.detach() + self.drop_1(self.c_proj(heads))
    return x + self.drop_2(self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), "tanh")))


def test_a_gradient_that_does_not_go_around_is_seen(monkeypatch):
    monkeypatch.setattr(Block, "forward", not_around)
    with pytest.raises(AssertionError):
        the_gradient_is_the_slope()


# Which parameters are synchronised


class Nested(nn.Module):
    """A parameter of its own, a child's, a grandchild's, and one in a list."""

    def __init__(self):
        self.scale = nn.Parameter(np.ones(3))
        self.child = nn.Linear(3, 3)
        self.deep = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.LayerNorm(3))
        self.listed = nn.ModuleList([nn.Linear(3, 3, bias=False)])


def every_parameter_is_summed(ranks):
    def main(comm):
        model = Nested()
        for _, p in model.named_parameters():
            p.grad = Tensor(np.full_like(p.data, comm.rank + 1))
        Bucketed(model.parameters(), comm).sum_gradients()
        return {name: p.grad.data for name, p in model.named_parameters()}

    for grads in simulate(main, ranks):
        assert len(grads) == 8
        assert all((g == ranks * (ranks + 1) / 2).all() for g in grads.values())


@pytest.mark.parametrize("ranks", [2, 3])
def test_every_parameter_is_summed(ranks):
    """Data parallelism that asks direct children alone leaves each rank a model of its own."""
    every_parameter_is_summed(ranks)


def of_children_alone(self, recurse=True):
    return iter([p for child in self.children() for p in PARAMETERS(child, recurse=False)])


PARAMETERS = nn.Module.parameters


def test_parameters_further_down_that_are_left_out_are_seen(monkeypatch):
    monkeypatch.setattr(nn.Module, "parameters", of_children_alone)
    with pytest.raises(AssertionError):
        every_parameter_is_summed(2)


# How gradients are compared


def a_transposed_gradient_is_far():
    wrong = {name: g.T if g.shape == (12, 12) else g for name, g in ALONE.items()}
    assert any(g.shape == (12, 12) for g in wrong.values())
    assert small.far(wrong, ALONE) > 100 * BOUND


def test_a_transposed_gradient_is_far():
    """Gradients that are compared by one sum are equal when one of them lies on its side."""
    a_transposed_gradient_is_far()


def by_one_sum(ours, theirs):
    return max(abs(ours[name].sum() - g.sum()) for name, g in theirs.items())


def test_a_comparison_by_one_sum_is_seen(monkeypatch):
    monkeypatch.setattr(small, "far", by_one_sum)
    with pytest.raises(AssertionError):
        a_transposed_gradient_is_far()
