"""Tensor-parallel LSTM and GRU: equal to nn.LSTM and nn.GRU in every layout."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tensor_cases import BOUND, check_layouts, check_mutant, far, train

import minidist as md
from minidist import nn
from minidist.comm import Ledger, simulate
from minidist.ops import communication
from minidist.parallel.layout import full_state_dict, load_full_state_dict, shard_indices, shards_of
from minidist.parallel.tensor import recurrent
from minidist.parallel.tensor.linear import ColumnParallelLinear, RowParallelLinear
from minidist.parallel.tensor.recurrent import TensorParallelGRU, TensorParallelLSTM
from minidist.tensor.tensor import Tensor

RNG = np.random.default_rng(0)
SEQUENCES, LABELS = RNG.normal(size=(4, 5, 3)), RNG.integers(0, 6, 4)
KINDS = {nn.LSTM: TensorParallelLSTM, nn.GRU: TensorParallelGRU}
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


class Classifier(nn.Module):
    """A stack between linear layers: what its backward sums goes on to the first of them."""

    def __init__(self, kind, hidden, comm):
        rnn, fc, proj = kind, nn.Linear, nn.Linear
        if comm is not None:
            split = KINDS[kind], ColumnParallelLinear, RowParallelLinear
            rnn, fc, proj = (partial(layer, comm=comm) for layer in split)
        self.first = nn.Linear(3, 4)
        self.rnn = rnn(4, hidden, 2, batch_first=True)
        self.fc, self.proj = fc(hidden, 9), proj(9, 6)

    def forward(self, x):
        y, last = self.rnn(self.first(x))
        c = last[1][0] if isinstance(last, tuple) else last[0]  # a cell gets a gradient too
        return self.proj(self.fc(y[:, -1] + y.mean(1) + c).tanh())


@each_kind
@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_a_classifier_is_one_process_in_every_layout(kind, ranks):
    """7 hidden units and 9 after them: nothing divides."""
    check_layouts(partial(Classifier, kind, 7), ranks, SEQUENCES, LABELS)


@each_kind
def test_float32_fails_that_bound(kind):
    make = partial(Classifier, kind, 7)
    ours = simulate(lambda comm: train(make, comm, SEQUENCES, LABELS, "float32"), 2)[0]
    assert far(ours, train(make, None, SEQUENCES, LABELS)) > 100 * BOUND


@each_kind
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_first_values_are_the_same_bits_in_every_layout(kind, ranks, bias):
    md.manual_seed(7)
    alone, after = kind(3, 5, 2, bias).state_dict(), md.randn(3).data

    def main(comm):
        md.manual_seed(7)
        mine = KINDS[kind](3, 5, 2, bias, comm=comm)
        return full_state_dict(mine), md.randn(3).data, {len(p) for p in mine.parameters()}

    rows = 4 if kind is nn.LSTM else 3
    units = [[5], [2, 3], [1, 2, 2]][ranks - 1]
    results = simulate(main, ranks)
    assert sorted(max(lengths) for *_, lengths in results) == [rows * n for n in units]
    for state, drawn, lengths in results:
        assert list(state) == list(alone) and (drawn == after).all()
        assert all((state[name] == alone[name]).all() for name in alone)
        assert len(lengths) == 1


@settings(max_examples=25)
@given(
    kind=st.sampled_from(list(KINDS)), ranks=st.integers(1, 4), hidden=st.integers(4, 7),
    layers=st.integers(1, 2), bias=st.booleans(), batch_first=st.booleans(),
    given_states=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
def test_outputs_states_and_their_gradients(
    kind, ranks, hidden, layers, bias, batch_first, given_states, seed
):
    rng = np.random.default_rng(seed)
    x, b = rng.normal(size=(3, 2, 4)), 3 if batch_first else 2
    h, c, dh, dc = rng.normal(size=(4, layers, b, hidden))
    dy = rng.normal(size=(3, 2, hidden))
    md.manual_seed(seed)
    whole = kind(4, hidden, layers, bias, batch_first, dtype="float64")

    def run(model):
        leaves = [Tensor(a.copy()).requires_grad_() for a in (x, h, c)]
        leaves = leaves[: 3 if kind is nn.LSTM else 2] if given_states else leaves[:1]
        hx = None if not given_states else tuple(leaves[1:]) if len(leaves) > 2 else leaves[1]
        y, last = model(leaves[0], hx)
        ends = last if isinstance(last, tuple) else (last,)
        sums = [(v * Tensor(d)).sum() for v, d in zip((y, *ends), (dy, dh, dc))]
        sum(sums[1:], sums[0]).backward()
        parts, found = shards_of(model), [v.data for v in (y, *ends)]
        grads = {k: p.grad.data for k, p in model.named_parameters()}
        found += [parts[k].gather(g) if k in parts else g for k, g in grads.items()]
        return found + [leaf.grad.data for leaf in leaves]

    def main(comm):
        model = KINDS[kind](4, hidden, layers, bias, batch_first, comm=comm, dtype="float64")
        load_full_state_dict(model, whole.state_dict())
        return run(model)

    alone = run(whole)
    for ours in simulate(main, ranks, seed=seed):
        for mine, theirs in zip(ours, alone, strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-13 * max(1, abs(theirs).max()))


# What is sent


@each_kind
@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("ranks", [2, 3])
def test_every_step_gathers_h_once(kind, ranks, given):
    """By rings: each collective sends n - 1 times the whole, in n·(n - 1) messages."""
    steps, batch, hidden, n, lstm = 4, 2, 6, ranks, kind is nn.LSTM

    def main(comm):
        model = KINDS[kind](3, hidden, comm=comm)
        states = [Tensor(np.ones((1, batch, hidden), "float32")).requires_grad_() for _ in "hc"]
        hx = (tuple(states) if lstm else states[0]) if given else None
        with Ledger(comm) as forward:
            y, _ = model(Tensor(np.ones((steps, batch, 3), "float32")), hx)
        with Ledger(comm) as backward:
            y.sum().backward()
        return [ledger.of_all_ranks().by("collective") for ledger in (forward, backward)]

    def sent(collectives):
        return collectives * n * (n - 1), collectives * (n - 1) * batch * hidden * 4

    forward, backward = simulate(main, ranks)[0]
    assert forward == {("all_gather",): sent(steps + lstm)}  # of h, and of the last c
    if given:  # the cotangents of h0 and c0 too
        wanted = {("reduce_scatter",): sent(steps), ("all_gather",): sent(1 + lstm)}
    else:  # nothing asks for that of the first state, zeros
        wanted = {("reduce_scatter",): sent(steps - 1)}
    assert backward == wanted


# What is refused


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda m: m(md.zeros(5, 3)), r"want \(s, b, in\) with in = 3, whole on every rank"),
        (lambda m: m(md.zeros(5, 2, 4)), r"input \(5, 2, 4\)"),
        (lambda m: m(md.zeros(0, 2, 3)), "has no steps"),
        (lambda m: m(md.zeros(5, 2, 3), md.zeros(1, 2, 3)), r"want 1 of shape \(1, 2, 6\), whole"),
    ],
)
def test_what_cannot_be_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        simulate(lambda comm: call(TensorParallelGRU(3, 6, comm=comm)), 2)
    with pytest.raises(ValueError, match="3 units of 1 on 4 tensor-parallel ranks"):
        simulate(lambda comm: TensorParallelLSTM(3, 3, comm=comm), 4)


# The controls: bugs, each seen by the equality above

GATHERED, SCATTERED = recurrent.all_gather, recurrent.reduce_scatter


def wrong_order(comm, rows, counts):
    """The other rank's units first."""
    return np.roll(GATHERED(comm, rows, counts), len(rows), 0)


def not_summed(comm, rows, op, algorithm, counts):
    """This rank's own part, without the others' terms."""
    SCATTERED(comm, rows.copy(), op, algorithm, counts)
    start = sum(counts[: comm.rank])
    return rows[start : start + counts[comm.rank]]


def not_copied(x, comm):
    return x


MUTANTS = [
    (recurrent, "all_gather", wrong_order), (recurrent, "reduce_scatter", not_summed),
    (communication, "copy", not_copied),
]  # fmt: skip


@each_kind
@pytest.mark.parametrize("module, name, mutant", MUTANTS, ids=lambda x: getattr(x, "__name__", ""))
def test_a_wrong_collective_is_seen(kind, module, name, mutant, monkeypatch):
    monkeypatch.setattr(module, name, mutant)
    check_mutant(partial(Classifier, kind, 6), SEQUENCES, LABELS)


@each_kind
def test_rows_shared_out_without_regard_to_gates_are_seen(kind, monkeypatch):
    monkeypatch.setattr(recurrent, "shard_indices", lambda n, comm, blocks: shard_indices(n, comm))
    check_mutant(partial(Classifier, kind, 6), SEQUENCES, LABELS)
