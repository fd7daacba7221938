"""Tensor-parallel convolutions: equal to nn.Conv2d in every layout, to the bit on whole numbers."""

from functools import partial
from math import log2

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tensor_cases import BOUND, check_layouts, check_mutant, far, train

import minidist as md
from minidist import nn
from minidist.comm import Ledger, simulate
from minidist.comm.comm_self import CommSelf
from minidist.nn import functional as F
from minidist.ops import communication
from minidist.parallel.clip_grad import clip_grad_norm_
from minidist.parallel.layout import (
    full_state_dict,
    load_full_state_dict,
    shard_parameter,
    sharded_parameters,
    shards_of,
)
from minidist.parallel.tensor import conv
from minidist.parallel.tensor.conv import ColumnParallelConv2d, RowParallelConv2d
from minidist.parallel.tensor.linear import ColumnParallelLinear, RowParallelLinear
from minidist.tensor.tensor import Tensor

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.normal(size=(4, 3, 9, 8)), RNG.integers(0, 6, 4)


class Net(nn.Module):
    """Convolutions before the pair too, so that what is summed in its backward goes on."""

    def __init__(self, comm):
        layers = nn.Conv2d, nn.Conv2d, nn.Linear, nn.Linear
        if comm is not None:
            split = ColumnParallelConv2d, RowParallelConv2d, ColumnParallelLinear, RowParallelLinear
            layers = [partial(layer, comm=comm) for layer in split]
        column, row, fc, proj = layers
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.column = column(5, 7, 3, stride=2, padding=1, padding_mode="reflect")
        self.row = row(7, 6, (3, 2), padding="same", dilation=2, padding_mode="circular")
        self.fc, self.proj = fc(6 * 2 * 2, 9), proj(9, 6)

    def forward(self, x):
        x = self.row(F.relu(self.column(F.relu(self.first(x)))))
        return self.proj(F.relu(self.fc(F.max_pool2d(x, 2).flatten(1))))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_cnn_is_one_process_in_every_layout(ranks):
    """5, 7 and 9 channels and units: nothing divides."""
    check_layouts(Net, ranks, IMAGES, LABELS)


def test_float32_fails_that_bound():
    alone = train(Net, None, IMAGES, LABELS)
    ours = simulate(lambda comm: train(Net, comm, IMAGES, LABELS, "float32"), 2)[0]
    assert far(ours, alone) > 100 * BOUND


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("layer", [ColumnParallelConv2d, RowParallelConv2d])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_first_values_are_the_same_bits_in_every_layout(layer, ranks, bias):
    md.manual_seed(7)
    alone, after = nn.Conv2d(5, 4, 3, bias=bias).state_dict(), md.randn(3).data

    def main(comm):
        md.manual_seed(7)
        mine = layer(5, 4, 3, bias=bias, comm=comm)
        return full_state_dict(mine), md.randn(3).data, mine

    for state, drawn, mine in simulate(main, ranks):
        assert state.keys() == alone.keys() and (drawn == after).all()
        assert all((state[name] == alone[name]).all() for name in alone)
        assert repr(mine).startswith(f"{layer.__name__}(5, 4, kernel_size=(3, 3)")
        assert mine.weight.numel() < 5 * 4 * 9 or ranks == 1


@settings(max_examples=30)
@given(
    ranks=st.integers(1, 4), middle=st.integers(4, 7), batch=st.booleans(), bias=st.booleans(),
    stride=st.integers(1, 2), seed=st.integers(0, 9),
)  # fmt: skip
def test_a_pair_is_bitwise_on_whole_numbers(ranks, middle, batch, bias, stride, seed):
    rng = np.random.default_rng(seed)
    ints = lambda *shape: rng.integers(-4, 5, shape).astype("float32")
    x = ints(2, 3, 7, 6) if batch else ints(3, 7, 6)
    states = [{"weight": ints(middle, 3, 3, 3)}, {"weight": ints(2, middle, 2, 2)}]
    if bias:
        states = [s | {"bias": ints(len(s["weight"]))} for s in states]

    def run(comm):
        one = ColumnParallelConv2d(3, middle, 3, stride, 1, bias=bias, comm=comm)
        two = RowParallelConv2d(middle, 2, 2, bias=bias, comm=comm)
        model, data = nn.Sequential(one, nn.ReLU(), two), Tensor(x).requires_grad_()
        load_full_state_dict(one, states[0])
        load_full_state_dict(two, states[1])
        y = model(data)
        y.backward(Tensor(np.random.default_rng(seed).integers(-4, 5, y.shape).astype("float32")))
        parts = shards_of(model)
        grads = {name: p.grad.data for name, p in model.named_parameters()}
        whole = [parts[name].gather(g) if name in parts else g for name, g in grads.items()]
        return [y.data, data.grad.data, *whole]

    alone = run(CommSelf())
    for ours in simulate(run, ranks, seed=seed):
        assert all((a == b).all() for a, b in zip(ours, alone, strict=True))


def test_the_clipped_norm_is_the_whole_models():
    def main(comm):
        md.manual_seed(3)
        model = Net(comm).double()
        F.cross_entropy(model(Tensor(IMAGES)), Tensor(LABELS)).backward()
        params = list(model.parameters())
        if comm is None:
            return nn.utils.clip_grad_norm_(params, 0.1).item()
        return clip_grad_norm_(params, 0.1, comm, sharded_parameters(model)).item()

    assert simulate(main, 3) == pytest.approx([main(None)] * 3, rel=1e-13)


# What is sent


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_pair_sends_an_all_reduce_each_way(ranks):
    """Doubling on n ranks, p of them a power of 2: p·log2(p) + 2(n - p) messages of the whole."""

    def main(comm):
        one = ColumnParallelConv2d(3, 8, 3, padding=1, comm=comm)
        two = RowParallelConv2d(8, 5, 3, comm=comm)
        data = Tensor(np.ones((2, 3, 9, 8), "float32")).requires_grad_()
        with Ledger(comm) as forward:
            y = two(F.relu(one(data)))
        with Ledger(comm) as backward:
            y.sum().backward()
        return [ledger.of_all_ranks().by("collective") for ledger in (forward, backward)]

    p = 2 ** int(log2(ranks))
    messages = p * int(log2(p)) + 2 * (ranks - p)
    out, into = 4 * 2 * 5 * 7 * 6, 4 * 2 * 3 * 9 * 8  # bytes of y and of dx
    want = [{("all_reduce",): (messages, messages * size)} for size in (out, into)]
    assert simulate(main, ranks)[0] == (want if ranks > 1 else [{}, {}])


def test_an_image_gets_no_gradient_and_sends_none():
    def main(comm):
        layer = ColumnParallelConv2d(3, 4, 3, comm=comm)
        with Ledger(comm) as ledger:
            layer(Tensor(np.ones((1, 3, 5, 5), "float32"))).sum().backward()
        return ledger.messages

    assert simulate(main, 2) == [0, 0]


# What is refused


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda c: ColumnParallelConv2d(4, 4, 3, groups=2, comm=c), "groups = 2: want 1"),
        (lambda c: RowParallelConv2d(4, 4, 3, groups=4, comm=c), "share no channels: give each"),
        (lambda c: ColumnParallelConv2d(4, 1, 3, comm=c), "1 units of 1 on 2 tensor-parallel"),
        (lambda c: RowParallelConv2d(4, 2, 3, comm=c)(md.zeros(1, 4, 5, 5)),
         r"has 4 channels: want this rank's 2 of 4"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        simulate(make, 2)


# The controls: bugs, each seen by the equality above


def bias_on_every_rank(self, input):
    return communication.reduce(self._convolve(input, self.bias), self.comm)


def dx_not_summed(self, input):
    return self._convolve(input, self.bias)


def not_reduced(self, input):
    return self._convolve(input, None) + self.bias.reshape(-1, 1, 1)


@pytest.mark.parametrize(
    "layer, mutant",
    [
        (RowParallelConv2d, bias_on_every_rank),
        (RowParallelConv2d, not_reduced),
        (ColumnParallelConv2d, dx_not_summed),
    ],
)
def test_a_wrong_layer_is_seen(layer, mutant, monkeypatch):
    monkeypatch.setattr(layer, "forward", mutant)
    check_mutant(Net, IMAGES, LABELS)


def test_own_first_values_are_seen(monkeypatch):
    """A rank that draws as many numbers as it holds has others than the whole's."""

    def drawn(module, name, full, *layout):
        shard = shard_parameter(module, name, full, *layout)
        return nn.Parameter(md.randn(*shard.shape) * 0.1)

    monkeypatch.setattr(conv, "shard_parameter", drawn)
    check_mutant(Net, IMAGES, LABELS)
