"""RNN, LSTM, GRU and their cells beside PyTorch's: states, packed sequences, errors, dropout."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, numbers
from support.parity import BOUNDS, assert_close, error_of, to_torch, torch

import minidist as md
from minidist import Tensor, nn
from minidist.nn.utils import rnn
from minidist.testing import gradcheck

torch_rnn = torch.nn.utils.rnn
KINDS = {"tanh": ("RNN", {}), "relu": ("RNN", {"nonlinearity": "relu"}), "LSTM": ("LSTM", {}),
         "GRU": ("GRU", {})}  # fmt: skip
EACH = pytest.mark.parametrize("kind", KINDS)
LENGTHS = st.lists(st.integers(1, 5), min_size=1, max_size=4)


def twins(kind, *sizes, dtype="float64", cell=False, **options):
    """The same module here and in PyTorch, with the same weights."""
    name, extra = KINDS[kind]
    make = lambda lib: getattr(lib, name + "Cell" * cell)(*sizes, **extra, **options)
    ours, theirs = make(nn).to(dtype), make(torch.nn).to(getattr(torch, dtype))
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    assert repr(ours) == repr(theirs) or name == "RNN"
    return ours, theirs


def flat(outputs):
    """y, (h, c) and the like as a list of tensors."""
    if isinstance(outputs, rnn.PackedSequence | torch_rnn.PackedSequence):
        return [outputs.data]
    if isinstance(outputs, tuple):
        return [t for part in outputs for t in flat(part)]
    return [outputs]


def compare(ours, theirs, run, arrays, dtype="float64"):
    """run(lib_module, *tensors) of both: outputs, and gradients of inputs and weights."""
    xs = [Tensor(a.astype(dtype), requires_grad=True) for a in arrays]
    ts = [to_torch(a.astype(dtype)).requires_grad_() for a in arrays]
    ys, zs = flat(run(ours, *xs)), flat(run(theirs, *ts))
    assert len(ys) == len(zs)
    total, twin = 0, 0
    for i, (y, z) in enumerate(zip(ys, zs)):
        assert_close(f"output {i}", y.data, z, BOUNDS[dtype])
        g = numbers(y.shape, i, dtype)
        total, twin = total + (y * Tensor(g)).sum(), twin + (z * to_torch(g)).sum()
    total.backward()
    twin.backward()
    pairs = [*zip(xs, ts), *zip(ours.parameters(), theirs.parameters())]
    for i, (x, t) in enumerate(pairs):
        assert_close(f"gradient {i}", x.grad.data, t.grad, BOUNDS[dtype])


def states(kind, shape, seed):
    return [numbers(shape, seed + i) for i in range(2 if kind == "LSTM" else 1)]


def as_hx(kind, given):
    return tuple(given) if kind == "LSTM" else given[0] if given else None


@EACH
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@given(layers=st.integers(1, 2), bias=st.booleans(), first=st.booleans(), both=st.booleans(),
       s=st.integers(1, 4), b=st.integers(0, 3), given_states=st.booleans(),
       seed=SEEDS)  # fmt: skip
@settings(max_examples=12)
def test_layers(kind, dtype, layers, bias, first, both, s, b, given_states, seed):
    options = {"num_layers": layers, "bias": bias, "batch_first": first, "bidirectional": both}
    ours, theirs = twins(kind, 3, 2, dtype=dtype, **options)
    x = numbers((b, s, 3) if first else (s, b, 3), seed)
    arrays = states(kind, (layers * (1 + both), b, 2), seed) if given_states else []
    run = lambda m, x, *hx: m(x, as_hx(kind, hx)) if hx else m(x)
    compare(ours, theirs, run, [x, *arrays], dtype)


@EACH
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("given_states", [False, True])
def test_without_a_batch(kind, first, given_states):
    ours, theirs = twins(kind, 3, 2, num_layers=2, bidirectional=True, batch_first=first)
    arrays = states(kind, (4, 2), 1) if given_states else []
    run = lambda m, x, *hx: m(x, as_hx(kind, hx)) if hx else m(x)
    compare(ours, theirs, run, [numbers((4, 3), 0), *arrays])


@EACH
@given(lengths=LENGTHS, ordered=st.booleans(), first=st.booleans(), both=st.booleans(),
       layers=st.integers(1, 2), given_states=st.booleans(), seed=SEEDS)  # fmt: skip
@settings(max_examples=15)
def test_packed(kind, lengths, ordered, first, both, layers, given_states, seed):
    lengths = sorted(lengths, reverse=True) if ordered else lengths
    ours, theirs = twins(kind, 3, 2, num_layers=layers, bidirectional=both, batch_first=first)
    s, b = max(lengths) + seed % 2, len(lengths)
    arrays = states(kind, (layers * (1 + both), b, 2), seed) if given_states else []

    def run(m, x, *hx):
        lib = rnn if m is ours else torch_rnn
        packed = lib.pack_padded_sequence(x, lengths, first, enforce_sorted=ordered)
        y, last = m(packed, as_hx(kind, hx)) if hx else m(packed)
        padded, counts = lib.pad_packed_sequence(y, first, padding_value=0.5, total_length=s)
        assert counts.tolist() == lengths
        return padded, last

    compare(ours, theirs, run, [numbers((b, s, 3) if first else (s, b, 3), seed), *arrays])


@EACH
def test_a_packed_sequence_is_each_sequence_alone(kind):
    """The control: run padded, the shorter ones end elsewhere."""
    torch.manual_seed(0)  # units of a ReLU may all be off
    ours, _ = twins(kind, 3, 2, bidirectional=True)
    lengths, x = [2, 4, 1], Tensor(numbers((4, 3, 3), 0))
    y, last = ours(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
    padded, _ = rnn.pad_packed_sequence(y)
    _, wrong = ours(x)
    for i, n in enumerate(lengths):
        alone, end = ours(x[:n, i])
        np.testing.assert_allclose(padded[:n, i].data, alone.data, rtol=1e-13)
        assert not padded[n:, i].data.any()
        for a, b, c in zip(flat(last), flat(end), flat(wrong)):
            np.testing.assert_allclose(a[:, i].data, b.data, rtol=1e-13)
            assert n == 4 or np.abs(c[:, i].data - b.data).max() > 1e-3


@pytest.mark.parametrize("ordered", [False, True])
def test_packing_is_pytorchs(ordered):
    x, lengths = numbers((5, 4, 2), 0), [5, 3, 3, 1] if ordered else [3, 1, 5, 3]
    for of in (list, np.array, md.tensor, torch.tensor):
        if of is torch.tensor:
            theirs = torch_rnn.pack_padded_sequence(to_torch(x), of(lengths), False, ordered)
        else:
            ours = rnn.pack_padded_sequence(Tensor(x), of(lengths), False, ordered)
    for a, b in zip(ours, theirs):
        assert (a is None) == (b is None)
        if a is not None:
            np.testing.assert_array_equal(a.data, b.numpy())
    assert ours.batch_sizes.dtype == "int64"


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("lengths", [[2], [2, 4, 1], [0, 3]])
def test_padding_and_packing_lists(side, first, lengths):
    arrays = [numbers((n, 2), i) for i, n in enumerate(lengths)]
    ours = rnn.pad_sequence([Tensor(a) for a in arrays], first, -1.0, side)
    theirs = torch_rnn.pad_sequence([to_torch(a) for a in arrays], first, -1.0, side)
    assert_close("pad_sequence", ours.data, theirs, 0)
    if min(lengths):
        ours = rnn.pack_sequence([Tensor(a) for a in arrays], enforce_sorted=False)
        theirs = torch_rnn.pack_sequence([to_torch(a) for a in arrays], enforce_sorted=False)
        assert_close("pack_sequence", ours.data.data, theirs.data, 0)


def test_gradients_through_packing():
    def round_trip(a, b):
        packed = rnn.pack_sequence([a, b], enforce_sorted=False)
        return rnn.pad_packed_sequence(packed, batch_first=True)[0]

    gradcheck(round_trip, [numbers((2, 2), 0), numbers((3, 2), 1)])


@EACH
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("lead", [(), (4,)])
@pytest.mark.parametrize("given_states", [False, True])
def test_cells(kind, bias, lead, given_states):
    ours, theirs = twins(kind, 3, 2, cell=True, bias=bias)
    assert repr(ours) == repr(theirs) or kind == "relu"
    arrays = states(kind, (*lead, 2), 1) if given_states else []
    run = lambda m, x, *hx: m(x, as_hx(kind, hx)) if hx else m(x)
    compare(ours, theirs, run, [numbers((*lead, 3), 0), *arrays])


def test_a_cell_step_by_step_is_the_layer():
    layer, cell = nn.LSTM(3, 4).double(), nn.LSTMCell(3, 4).double()
    cell.load_state_dict({k.removesuffix("_l0"): v for k, v in layer.state_dict().items()})
    x, state = Tensor(numbers((5, 2, 3), 0)), None
    y, (h, c) = layer(x)
    for t in range(5):
        state = cell(x[t], state)
        np.testing.assert_allclose(state[0].data, y[t].data, rtol=1e-13)
    np.testing.assert_allclose(state[1].data, c[0].data, rtol=1e-13)
    np.testing.assert_array_equal(h[0].data, y[-1].data)


def test_initial_weights_have_pytorchs_spread():
    md.manual_seed(0)
    for make in (lambda m: m.LSTM(30, 64, 2), lambda m: m.GRUCell(50, 64)):
        for p, q in zip(make(nn).parameters(), make(torch.nn).parameters()):
            q = q.detach().numpy()
            assert p.shape == q.shape and p.dtype == q.dtype
            assert abs(p.data.std() / q.std() - 1) < 0.2
            assert abs(np.abs(p.data).max() * 8 - 1) < 0.05


# Dropout between layers


def test_dropout_falls_between_layers_while_training():
    md.manual_seed(0)
    model, x = nn.GRU(3, 50, num_layers=2, dropout=0.5), Tensor(numbers((4, 6, 3), 0, "float32"))
    first, _ = model(x)
    assert np.abs(first.data - model(x)[0].data).max() > 1e-3
    model.eval()
    np.testing.assert_array_equal(model(x)[0].data, model(x)[0].data)
    plain = nn.GRU(3, 50, num_layers=2)
    plain.load_state_dict(model.state_dict())
    np.testing.assert_array_equal(model(x)[0].data, plain(x)[0].data)


def test_all_dropped_is_pytorchs():
    ours, theirs = twins("LSTM", 3, 2, num_layers=2, dropout=1.0)
    compare(ours, theirs, lambda m, x: m(x), [numbers((4, 2, 3), 0)])


def test_masks_belong_to_samples():
    """Any part of the batch, packed or not, drops what the whole batch would."""
    model, x = nn.GRU(3, 8, num_layers=2, dropout=0.5), Tensor(numbers((4, 6, 3), 0, "float32"))
    with md.random.at(seed=1, step=2, first_sample=10):
        whole, _ = model(x)
        packed, _ = model(rnn.pack_padded_sequence(x, [4, 2, 3, 4, 1, 2], enforce_sorted=False))
    with md.random.at(seed=1, step=2, first_sample=13):
        part, _ = model(x[:, 3:])
    np.testing.assert_allclose(whole[:, 3:].data, part.data, rtol=1e-6, atol=1e-7)
    padded, lengths = rnn.pad_packed_sequence(packed)
    for i, n in enumerate(lengths.tolist()):
        np.testing.assert_allclose(padded[:n, i].data, whole[:n, i].data, rtol=1e-6, atol=1e-7)
    with md.random.at(seed=1, step=2, first_sample=0):
        assert np.abs(model(x)[0].data - whole.data).max() > 1e-3


def test_dropout_of_one_layer_warns():
    with pytest.warns(UserWarning, match="only one"):
        nn.GRU(2, 2, dropout=0.5)


# What is refused

REFUSED = {
    "1-d input": lambda lib, z: lib.LSTM(4, 3)(z(4)),
    "4-d input": lambda lib, z: lib.GRU(4, 3)(z(1, 1, 1, 4)),
    "input size": lambda lib, z: lib.RNN(4, 3)(z(2, 1, 5)),
    "no steps": lambda lib, z: lib.RNN(4, 3)(z(0, 1, 4)),
    "batch of states": lambda lib, z: lib.LSTM(4, 3)(z(2, 1, 4), (z(1, 2, 3), z(1, 2, 3))),
    "states with a batch": lambda lib, z: lib.GRU(4, 3)(z(2, 4), z(1, 1, 3)),
    "states without a batch": lambda lib, z: lib.GRU(4, 3)(z(2, 1, 4), z(1, 3)),
    "number of layers' states": lambda lib, z: lib.GRU(4, 3)(z(2, 1, 4), z(2, 1, 3)),
    "dtype": lambda lib, z: lib.GRU(4, 3)(z(2, 1, 4).double()),
    "dtype of states": lambda lib, z: lib.GRU(4, 3)(z(2, 1, 4), z(1, 1, 3).double()),
    "nonlinearity": lambda lib, z: lib.RNN(2, 3, nonlinearity="sin"),
    "dropout": lambda lib, z: lib.GRU(2, 3, 2, dropout=2),
    "hidden_size 0": lambda lib, z: lib.RNN(2, 0),
    "num_layers 0": lambda lib, z: lib.RNN(2, 2, 0),
    "3-d input of a cell": lambda lib, z: lib.LSTMCell(4, 3)(z(1, 1, 4)),
    "input size of a cell": lambda lib, z: lib.GRUCell(4, 3)(z(1, 5)),
    "states of a cell": lambda lib, z: lib.LSTMCell(4, 3)(z(1, 4), (z(2, 3), z(2, 3))),
    "dtype of a cell": lambda lib, z: lib.GRUCell(4, 3)(z(1, 4).double()),
    "order of lengths": lambda lib, z: lib.utils.rnn.pack_padded_sequence(z(3, 2, 4), [2, 3]),
    "length 0": lambda lib, z: lib.utils.rnn.pack_padded_sequence(z(3, 2, 4), [3, 0]),
    "number of lengths": lambda lib, z: lib.utils.rnn.pack_padded_sequence(z(3, 2, 4), [3]),
    "total_length": lambda lib, z: lib.utils.rnn.pad_packed_sequence(
        lib.utils.rnn.pack_padded_sequence(z(3, 2, 4), [3, 3]), total_length=2),
    "nothing to pad": lambda lib, z: lib.utils.rnn.pad_sequence([]),
    "sequences of other sizes": lambda lib, z: lib.utils.rnn.pad_sequence([z(2, 3), z(2, 2)]),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_errors_are_pytorchs_kind(name):
    theirs = error_of(lambda: REFUSED[name](torch.nn, torch.zeros))
    assert theirs is not None
    assert error_of(lambda: REFUSED[name](nn, md.zeros)) == theirs


def test_errors_name_the_numbers():
    with pytest.raises(
        RuntimeError, match=r"GRU: states \[\(2, 1, 3\)\]: want 1 of shape \(1, 1, 3"
    ):
        nn.GRU(4, 3)(md.zeros(2, 1, 4), md.zeros(2, 1, 3))
    with pytest.raises(RuntimeError, match=r"lengths \[4, 1\]: want 1 to 3"):  # PyTorch runs on
        rnn.pack_padded_sequence(md.zeros(3, 2, 4), [4, 1])
    with pytest.raises(TypeError, match="proj_size"):
        nn.LSTM(4, 3, proj_size=2)
