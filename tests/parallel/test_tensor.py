"""Tensor and sequence parallelism: one model text, equal to one process in every layout."""

from contextvars import ContextVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import minidist as md
from minidist import random
from minidist.comm import Clock, Ledger, simulate
from minidist.comm.comm_self import CommSelf
from minidist.models.gpt import GPT, GPTConfig
from minidist.nn import functional as F
from minidist.optim import SGD
from minidist.parallel import sequence
from minidist.parallel.layout import (
    Shard,
    full_state_dict,
    init_shard_,
    load_full_state_dict,
    shard_indices,
    shards_of,
)
from minidist.parallel.sequence import Tokens, partial_parameters, sum_partial
from minidist.parallel.tensor import cross_entropy
from minidist.parallel.tensor import linear as tensor
from minidist.tensor.tensor import Tensor

CONFIG = GPTConfig(layers=2, hidden=12, heads=4, positions=7, vocab=13, dropout=0.3)
RNG = np.random.default_rng(0)
TOKENS, TARGETS = RNG.integers(0, 13, (3, 7)), RNG.integers(0, 13, (3, 7))
BOUND = 1e-12  # of some 1e4 operations in float64, relative to the largest entry. Not with Adam,
# which divides gradients that are 0 but for rounding (those of the keys' biases) by their own size.


def train(comm, sp, dtype="float64", steps=3, config=CONFIG, targets=TARGETS):
    """Losses, gradients of the first step and weights at the end, all whole."""
    model = GPT(config, seed=1, tp=comm, sequence_parallel=sp).to(dtype)
    model.reset_parameters(1)
    for name, p in model.named_parameters():
        if name.endswith(".bias"):
            p.data[...] = 0.1  # one that is added twice is seen in the first loss
    optimizer, losses, first = SGD(model.parameters(), lr=0.1, momentum=0.9), [], None
    for step in range(steps):
        with random.at(0, step, 0):
            loss = model.loss(Tensor(TOKENS), Tensor(targets), reduction="sum") / targets.size
        loss.backward()
        if sp:
            sum_partial(partial_parameters(model), comm)
        grads = {n: p.grad.data for n, p in model.named_parameters()}
        assert {g.dtype for g in grads.values()} == {np.dtype(dtype)}
        parts = shards_of(model)
        first = first or {n: parts[n].gather(g) if n in parts else g.copy()
                          for n, g in grads.items()}  # fmt: skip
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses, first, full_state_dict(model)


ALONE = train(CommSelf(), False)


def far(ours, alone):
    """The largest difference relative to the largest entry, over losses, gradients, weights."""
    pairs = [(np.array(ours[0]), np.array(alone[0]))]
    for mine, theirs in zip(ours[1:], alone[1:]):
        assert mine.keys() == theirs.keys()
        pairs += [(mine[name], theirs[name]) for name in mine]
    return max(np.abs(a - b).max() / (np.abs(b).max() + 1e-3) for a, b in pairs)


@pytest.mark.parametrize("sp", [False, True])
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_gpt_is_one_process_in_every_layout(ranks, sp):
    """4 heads on 3 ranks, 13 words, 7 tokens: nothing divides; dropout drops the same units."""
    for ours in simulate(lambda comm: train(comm, sp), ranks, seed=3):
        assert far(ours, ALONE) < BOUND
        assert ours[0] == simulate(lambda comm: train(comm, sp), ranks)[0][0], "on any schedule"


def test_float32_fails_that_bound():
    ours = simulate(lambda comm: train(comm, False, "float32"), 2)[0]
    assert far(ours, ALONE) > 100 * BOUND


@pytest.mark.parametrize("by_layout", [True, False])
def test_weights_drawn_by_name_are_cut_from_the_full_draw(by_layout):
    """The mutant draws as many numbers as this rank has: other weights than one process's."""
    draw = lambda shape: np.random.default_rng(0).standard_normal(shape)

    def main(comm):
        layer = tensor.RowParallelLinear(7, 3, comm=comm, dtype="float64")
        for name, p in layer.named_parameters():
            init_shard_(p, shards_of(layer).get(name) if by_layout else None, draw)
        return full_state_dict(layer)

    for state in simulate(main, 3):
        np.testing.assert_array_equal(state["bias"], draw(3))
        assert (state["weight"] == draw((3, 7))).all() == by_layout


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_first_weights_are_the_same_bits_in_every_layout(ranks):
    alone = GPT(CONFIG, seed=5).state_dict()

    def main(comm):
        md.manual_seed(3)
        model = GPT(CONFIG, seed=5, tp=comm)
        layer = tensor.ColumnParallelLinear(6, 8, comm=comm)
        return full_state_dict(model), full_state_dict(layer)

    md.manual_seed(3)
    GPT(CONFIG, seed=5)
    reference = md.nn.Linear(6, 8).state_dict()
    for state, layer in simulate(main, ranks):
        assert all((state[name] == alone[name]).all() for name in alone)
        assert all((layer[name] == reference[name]).all() for name in reference)


@settings(max_examples=30)
@given(st.integers(1, 4), st.booleans(), st.integers(0, 9), st.booleans())
def test_a_pair_of_layers_is_bitwise_on_whole_numbers(ranks, sp, seed, bias):
    rng = np.random.default_rng(seed)
    ints = lambda *shape: rng.integers(-4, 5, shape).astype("float32")
    x, g = ints(2, 5, 6), ints(2, 5, 6)
    w = {"weight": ints(8, 6), "bias": ints(8)}, {"weight": ints(6, 8), "bias": ints(6)}

    def run(comm):
        tokens = Tokens(comm) if sp else None
        if sp:
            tokens.length = 5
        mine = tokens.local if sp else slice(None)
        one = tensor.ColumnParallelLinear(6, 8, bias, comm=comm, tokens=tokens)
        two = tensor.RowParallelLinear(8, 6, bias, comm=comm, tokens=tokens)
        for layer, state in zip((one, two), w):
            load_full_state_dict(layer, {k: v for k, v in state.items() if bias or k == "weight"})
        data = Tensor(x[:, mine].copy()).requires_grad_()
        y = two(F.relu(one(data)))
        y.backward(Tensor(g[:, mine].copy()))
        if sp and bias:
            sum_partial([two.bias], comm)
        grads = [shards_of(m)["weight"].gather(m.weight.grad.data) for m in (one, two)]
        if bias:
            grads += [shards_of(one)["bias"].gather(one.bias.grad.data), two.bias.grad.data]
        return mine, y.data, data.grad.data, grads

    _, y, dx, grads = run(CommSelf()) if not sp else simulate(run, 1)[0]
    for mine, my, mdx, mgrads in simulate(run, ranks, seed=seed):
        assert (my == y[:, mine]).all() and (mdx == dx[:, mine]).all()
        assert all((a == b).all() for a, b in zip(mgrads, grads))


# The vocabulary


@settings(max_examples=40)
@given(
    ranks=st.integers(1, 5), classes=st.integers(5, 13), padding=st.integers(0, 3),
    smoothing=st.sampled_from([0.0, 0.1]), reduction=st.sampled_from(["mean", "sum", "none"]),
    seed=st.integers(0, 99),
)  # fmt: skip
def test_vocab_parallel_cross_entropy(ranks, classes, padding, smoothing, reduction, seed):
    rng = np.random.default_rng(seed)
    logits, target = rng.normal(0, 9, (6, classes + padding)), rng.integers(0, classes, 6)
    target[rng.random(6) < 0.3] = -100
    target[0] = classes - 1
    options = {"reduction": reduction, "label_smoothing": smoothing}
    whole = Tensor(logits[:, :classes]).requires_grad_()
    loss = F.cross_entropy(whole, Tensor(target), **options)
    loss.sum().backward()

    def main(comm):
        part = Shard((classes + padding, 1), 0, shard_indices(classes + padding, comm), comm)
        mine = Tensor(np.ascontiguousarray(logits[:, part.index])).requires_grad_()
        ours = cross_entropy.vocab_parallel_cross_entropy(
            mine, Tensor(target), part, classes=classes, **options
        )
        ours.sum().backward()
        return ours.data, mine.grad.data

    values, grads = zip(*simulate(main, ranks, seed=seed))
    assert all(v.tobytes() == values[0].tobytes() for v in values), "the same bits on all ranks"
    np.testing.assert_allclose(values[0], loss.data, rtol=1e-13, atol=1e-13)
    joined = np.concatenate(grads, axis=1)
    np.testing.assert_allclose(joined[:, :classes], whole.grad.data, rtol=0, atol=1e-14)
    assert not joined[:, classes:].any(), "padding gets no gradient"


def test_gathered_logits_and_unknown_tokens_are_refused():
    def main(comm):
        part = Shard((8, 1), 0, shard_indices(8, comm), comm)
        cross_entropy.vocab_parallel_cross_entropy(Tensor(np.ones((2, 8))), Tensor([0, 1]), part)

    with pytest.raises(ValueError, match=r"want \(n, 4\), this rank's columns, not gathered ones"):
        simulate(main, 2)
    with pytest.raises(IndexError, match="into a table of 13 rows"):
        simulate(lambda comm: GPT(CONFIG, tp=comm)(Tensor([[13]])), 2)
    with pytest.raises(ValueError, match="4 units of 3 on 5 tensor-parallel ranks"):
        simulate(lambda comm: GPT(CONFIG, tp=comm), 5)
    with pytest.raises(ValueError, match="do not divide"):
        shard_indices(10, CommSelf(), unit=3)


# What is sent


@pytest.mark.parametrize("sp", [False, True])
def test_a_step_sends_what_the_ledger_says(sp):
    """Shoeybi et al.: forward 2L + 1 all-reduces of A and 3 of rows, backward 2L + 1 of A."""
    config = GPTConfig(layers=3, hidden=8, heads=4, positions=8, vocab=16)
    tokens, a = RNG.integers(0, 16, (2, 8)), 2 * 8 * 8 * 8  # b·s·h float64 numbers

    def main(comm):
        model = GPT(config, tp=comm, sequence_parallel=sp).double()
        with Ledger(comm) as forward:
            loss = model.loss(Tensor(tokens), Tensor(tokens))
        with Ledger(comm) as backward:
            loss.backward()
        return forward.of_all_ranks().by("collective"), backward.of_all_ranks().by("collective")

    forward, backward = simulate(main, 4)[0]
    bytes_of = lambda sent, name: sent.get((name,), (0, 0))[1]
    n, rows = 4, 2 * 8 * 8
    ar = lambda nbytes: nbytes * 4 * 2  # doubling on 4 ranks: n·log2(n)·S
    if not sp:
        assert set(forward) == set(backward) == {("all_reduce",)}
        assert bytes_of(forward, "all_reduce") == ar((2 * 3 + 1) * a + 4 * rows)
        assert bytes_of(backward, "all_reduce") == ar((2 * 3 + 1) * a)
        return
    assert bytes_of(forward, "all_reduce") == ar(4 * rows)
    assert bytes_of(forward, "all_gather") == (2 * 3 + 1) * (n - 1) * a
    assert bytes_of(forward, "reduce_scatter") == (2 * 3 + 1) * (n - 1) * a
    assert bytes_of(backward, "reduce_scatter") == (2 * 3 + 1) * (n - 1) * a
    assert bytes_of(backward, "all_gather") == (2 * (2 * 3 + 1)) * (n - 1) * a
    assert set(forward) == {("all_reduce",), ("all_gather",), ("reduce_scatter",)}


# The controls: bugs that shipped, each seen by the equality above


def bias_on_every_rank(self, input):
    return tensor.reduce_partial(F.linear(input, self.weight, self.bias), self.comm, self.tokens)


def nothing_is_summed(params, comm):
    del params, comm


def own_mask(self, input):
    if self.tokens is None:
        return F.dropout(input, self.p, self.training, self.name)
    return F.dropout(input, self.p, self.training, f"{self.name}{self.tokens.comm.rank}")


def ordinary_shares(n, comm, unit=1, blocks=1):
    return shard_indices(n, comm, unit)


def not_reduced(x, comm, tokens):
    return x if tokens is None else JOINED(x, comm, tokens)


JOINED = tensor.reduce_partial
MUTANTS = [
    (tensor.RowParallelLinear, "forward", bias_on_every_rank, False),
    (sequence.SequenceParallelDropout, "forward", own_mask, True),
    (tensor, "shard_indices", ordinary_shares, False),
    (tensor, "reduce_partial", not_reduced, False),
    (tensor, "_start_sum", lambda dx, comm, tokens: CommSelf().start(lambda comm: dx), False),
]


@pytest.mark.parametrize(
    "where, name, mutant, sp", MUTANTS, ids=lambda x: getattr(x, "__name__", "")
)
def test_a_wrong_layer_is_seen(where, name, mutant, sp, monkeypatch):
    monkeypatch.setattr(where, name, mutant)
    try:
        ours = simulate(lambda comm: train(comm, sp), 2)[0]
    except (RuntimeError, ValueError):
        return
    assert far(ours, ALONE) > 100 * BOUND


def test_forgetting_the_partial_gradients_is_seen(monkeypatch):
    monkeypatch.setitem(globals(), "sum_partial", nothing_is_summed)
    assert far(simulate(lambda comm: train(comm, True), 2)[0], ALONE) > 100 * BOUND


def test_the_inputs_gradient_is_summed_while_the_weights_is_computed(monkeypatch):
    """On the virtual clock the longer of the two is what backward takes, not both."""
    here = ContextVar("here")
    slow = lambda g, rows: (here.get().compute(10.0), BACKWARD_WEIGHT(g, rows))[1]
    monkeypatch.setattr(tensor.kernel, "backward_weight", slow)

    def main(comm):
        here.set(comm)
        layer = tensor.ColumnParallelLinear(8, 8, comm=comm, dtype="float64")
        y = layer(Tensor(np.ones((4, 8))).requires_grad_())
        start = comm.time()
        y.backward(Tensor(np.ones(y.shape)))
        return comm.time() - start

    message = 4 * 8 * 8 / 32  # 8 s: doubling sends all of dx once to the other of two ranks
    took = simulate(main, 2, clock=Clock(alpha=0.0, beta=1 / 32, gamma=1.0))
    adding = 4 * 8
    assert message < took[0] < message + 10 + adding
    assert took[0] == pytest.approx(max(10.0, message + adding))


BACKWARD_WEIGHT = tensor.kernel.backward_weight
