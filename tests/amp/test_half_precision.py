"""16 bits where no operation stands between: bfloat16's bits are never taken for integers."""

import copy
import hashlib
import json
import pickle

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import minidist as md
from minidist import Tensor, nn, optim
from minidist.amp import GradScaler
from minidist.comm import Ledger, all_gather, scatter, simulate
from minidist.nn import functional as F
from minidist.parallel.data.sum_gradients import Bucketed, sum_gradients_naive
from minidist.parallel.layout import gather_stages
from minidist.tensor import dtypes
from minidist.testing import gradcheck
from minidist.train import checkpoint

BF = md.bfloat16
HALVES = ("float16", "bfloat16")


def numbers(*shape, seed=0):
    return np.random.default_rng([*shape, seed]).standard_normal(shape).astype("f")


def bf(values, **options):
    return md.tensor(values, dtype=BF, **options)


def parameter(values, gradient):
    p = nn.Parameter(bf(values))
    p.grad = bf(gradient)
    return p


# Parameters, their first values and their optimizers


def test_first_values():
    p = nn.Parameter(md.zeros(64, 64, dtype=BF))
    assert nn.init.constant_(p, 2.5)[0, 0].item() == 2.5 and nn.init.eye_(p).sum().item() == 64
    assert abs(nn.init.normal_(p, 1.0).float().mean().item() - 1) < 0.1
    assert 0.05 < nn.Linear(64, 64, dtype=BF).weight.float().std().item() < 0.1
    norm = nn.LayerNorm(2).bfloat16()
    norm.reset_parameters()
    assert norm.weight.dtype == BF and norm.weight.tolist() == [1, 1]


def test_a_step_that_maximizes():
    p = parameter([1.0, 1.0], [1.0, -2.0])
    optim.SGD([p], lr=0.5, maximize=True).step()
    assert p.tolist() == [1.5, 0]


@pytest.mark.parametrize("name", "Adagrad AdamW Lion Muon RMSprop SGD".split())  # noqa: SIM905
def test_an_optimizer_goes_on_from_its_state(name):
    options = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    p = parameter(numbers(4, 4), numbers(4, 4, seed=1))
    first = getattr(optim, name)([p], lr=0.1, **options)
    first.step()
    q = copy.deepcopy(p)
    q.grad = p.grad
    second = getattr(optim, name)([q], lr=0.1, **options)
    second.load_state_dict(first.state_dict())
    arrays = [a for a in second.state[q].values() if isinstance(a, np.ndarray) and a.ndim]
    assert arrays and all(a.dtype == np.float32 and a.any() for a in arrays)
    first.step(), second.step()
    assert p.tolist() == q.tolist() and np.isfinite(p.tolist()).all()


PAIRS = [(a, b) for a in (*HALVES, "float32") for b in ("bfloat16", "float32")]


@pytest.mark.parametrize("ours, theirs", PAIRS)
def test_a_state_dict_is_loaded_in_another_dtype(ours, theirs):
    a, b = nn.Linear(3, 2).to(ours), nn.Linear(3, 2).to(theirs)
    b.load_state_dict(a.state_dict())
    assert b.weight.dtype == dtypes.DTYPES[theirs]
    assert b.weight.tolist() == a.weight.to(theirs).tolist()


def test_parameters_are_copied_and_pickled():
    layer = nn.Linear(3, 2).bfloat16()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert twin.weight.dtype == BF and isinstance(twin.weight, nn.Parameter)
        assert twin.weight.tolist() == layer.weight.tolist()


def test_a_checkpoint(tmp_path):
    def made():
        layer = nn.Linear(3, 2).bfloat16()
        return layer, optim.AdamW(layer.parameters())

    layer, optimizer = made()
    layer(bf(numbers(2, 3))).sum().backward()
    optimizer.step()
    path = checkpoint.save(tmp_path, 1, layer, optimizer, 5)
    other, second = made()
    checkpoint.load(path, other, second)
    assert other.weight.tolist() == layer.weight.tolist()
    for name, array in optimizer.state[layer.weight].items():
        assert np.array_equal(second.state[other.weight][name], array)


def test_a_checkpoint_written_before_bfloat16_was_a_dtype(tmp_path):
    """Its bits were stored as uint16: U16, where safetensors now writes BF16."""
    layer, other = nn.Linear(3, 2).bfloat16(), nn.Linear(3, 2).bfloat16()
    path = checkpoint.save(tmp_path, 1, layer, optim.SGD(layer.parameters()), 5)
    file = path / "model.safetensors"
    now = load_file(file)
    assert all(a.dtype == BF for a in now.values())
    save_file({k: a.view(np.uint16) for k, a in now.items()}, file)
    state = json.loads((path / "state.json").read_text())
    state["sha256"][file.name] = hashlib.sha256(file.read_bytes()).hexdigest()
    (path / "state.json").write_text(json.dumps(state))
    assert all(a.dtype == np.uint16 for a in load_file(file).values())
    checkpoint.load(path, other, optim.SGD(other.parameters()))
    assert other.weight.tolist() == layer.weight.tolist()


def test_gradients_are_clipped_by_value():
    p = parameter([0.0] * 3, [-3.0, 0.5, 3.0])
    nn.utils.clip_grad_value_([p], 1.0)
    assert p.grad.tolist() == [-1, 0.5, 1]


def test_a_gradient_of_another_dtype_is_refused():
    with pytest.raises(RuntimeError, match="grad is of another dtype"):
        nn.Parameter(md.ones(2)).grad = md.ones(2, dtype=BF)


@pytest.mark.parametrize("dtype", [*HALVES, "float32"])
@pytest.mark.parametrize("add_up", [
    lambda ps, comm: sum_gradients_naive(ps, comm),
    lambda ps, comm: Bucketed(ps, comm, 8).sum_gradients(),
    lambda ps, comm: Bucketed(ps, comm).sum_gradients(),
])  # fmt: skip
def test_gradients_are_summed_over_ranks(add_up, dtype):
    given = [md.tensor(numbers(2, 3, seed=i)).to(dtype) for i in range(3)]

    def program(comm):
        layer = nn.Linear(3, 2).to(dtype)
        layer.weight.grad = given[comm.rank].clone()
        add_up(layer.parameters(), comm)
        return layer.weight.grad.tolist(), layer.bias.grad.tolist()

    exact = sum(g.float().data for g in given)
    eps = {"bfloat16": 2.0**-8, "float16": 2.0**-10, "float32": 2.0**-22}[dtype]
    for weight, bias in simulate(program, 3):
        assert np.abs(np.array(weight) - exact).max() <= eps * np.abs(exact).max()
        assert bias == [0, 0], "a parameter without a gradient"


@pytest.mark.parametrize("dtype", [*HALVES, "float32"])
def test_ranks_tell_each_other_the_dtype(dtype):
    """bfloat16 is known by its name: its str, "<V2", means two bytes of anything."""
    numbers = np.arange(6.0).astype(dtypes.DTYPES[dtype])

    def program(comm):
        joined = gather_stages({f"rank {comm.rank}": numbers}, comm)
        part = scatter(comm, None if comm.rank else numbers)
        with Ledger(comm, log=True) as ledger:
            everything = all_gather(comm, part, [3, 3])
        assert [np.dtype(m.dtype) for m in ledger.messages_sent] == [numbers.dtype]
        return {a.dtype for a in (*joined.values(), part, everything)}, everything.tolist()

    assert simulate(program, 2) == [({numbers.dtype}, numbers.tolist())] * 2


# Tensors


KINDS = ("bfloat16", "float16", "float32", "float64", "int64")


@pytest.mark.parametrize("into", KINDS)
@pytest.mark.parametrize("whence", KINDS)
def test_values_are_written_into_other_dtypes(into, whence):
    values = md.tensor([1.0, 2.0, 3.0]).to(whence)
    assert md.zeros(3, dtype=into).copy_(values).tolist() == [1, 2, 3]
    x = md.zeros(2, 3, dtype=into)
    x[1] = values
    assert x.tolist() == [[0, 0, 0], [1, 2, 3]]


def test_gradients_of_what_is_written():
    """Broadcast: sums of cotangents, not of their bits."""
    for into, whence in ((BF, BF), ("float32", BF), (BF, "float32")):
        v = md.tensor([1.0, 2.0], dtype=whence, requires_grad=True)
        x = md.zeros(3, 2, dtype=into)
        x[:] = v
        (x.float() * md.tensor([[1.0, 2], [3, 4], [5, 6]])).sum().backward()
        assert v.grad.dtype == v.dtype and v.grad.tolist() == [9, 12]


def test_integers_do_not_take_bfloat16_in_place():
    with pytest.raises(RuntimeError, match="result type bfloat16 can't be cast to int64"):
        md.ones(2, dtype="int64").add_(bf([0.5, 0.5]))


def test_arrays_of_uint16_are_numbers():
    """Tokens: as operands, with a dtype or written, they are what they say."""
    tokens = np.array([1, 2], np.uint16)
    assert md.tensor(tokens, dtype="int64").tolist() == Tensor(tokens, dtype="int64").tolist()
    assert md.as_tensor(tokens, dtype="float32").tolist() == [1, 2]
    for dtype in KINDS:
        assert md.zeros(2, dtype=dtype).copy_(tokens).tolist() == [1, 2]
    total = md.ones(2, dtype="int64") + tokens
    assert total.dtype == "int64" and total.tolist() == [2, 3]


def test_predicates_and_draws():
    x = bf([-0.0, 0.0, 3.0])
    assert not bf([-0.0]).any() and not bf([-0.0, 1.0]).all() and md.nonzero(x).tolist() == [[2]]
    assert md.unique(bf([2.0, -1.0, 2.0])).tolist() == [-1, 2]
    assert md.bernoulli(bf([0.0, 1.0])).tolist() == [0, 1]
    assert md.multinomial(bf([0.0, 1.0]), 1).tolist() == [1]
    assert md.bincount(md.tensor([0, 1]), bf([0.5, 1.0])).tolist() == [0.5, 1]
    assert md.randint(7, 8, (2,), dtype=BF).tolist() == [7, 7]
    assert md.finfo(BF).eps == 2.0**-7 and md.finfo("float32").eps == np.float32(2.0**-23)


INTEGERS_WANTED = {
    "bincount": lambda: md.bincount(bf([0.0, 1.0])),
    "cross_entropy": lambda: F.cross_entropy(md.ones(2, 3), bf([0.0, 0.0])),
    "embedding": lambda: F.embedding(bf([0.0]), md.ones(3, 2)),
    "getitem": lambda: md.ones(3)[bf([0.0])],
    "index": lambda: [1, 2][bf(1.0)],
    "repeat_interleave": lambda: md.ones(2).repeat_interleave(bf([1.0, 1.0])),
}


@pytest.mark.parametrize("name", INTEGERS_WANTED)
def test_where_integers_are_wanted_it_is_refused(name):
    with pytest.raises((RuntimeError, TypeError, IndexError), match="bfloat16"):
        INTEGERS_WANTED[name]()


@pytest.mark.filterwarnings("ignore:invalid value")
def test_the_first_nan_is_found():
    with md.autograd.detect_anomaly(), pytest.raises(RuntimeError, match="'log' made the first"):
        bf([-1.0]).log()


def test_messages_call_it_by_its_name():
    with pytest.raises(AssertionError, match="input 0 is bfloat16"):
        gradcheck(lambda x: x * x, [bf([1.0])])


# Layers and losses


CLASSES = md.tensor([0, 2, 1, 0])
SAME = {
    "batch_norm": (lambda x: F.batch_norm(x, None, None, training=True), (6, 3)),
    "rms_norm": (lambda x: F.rms_norm(x * 0.01, (3,)), (4, 3)),
    "avg_pool1d": (lambda x: F.avg_pool1d(x, 2), (2, 3, 6)),
    "adaptive_avg_pool1d": (lambda x: F.adaptive_avg_pool1d(x, 2), (2, 3, 6)),
    "class weights": (
        lambda x: F.cross_entropy(x, CLASSES, md.tensor([1.0, 2, 3]).to(x.dtype)), (4, 3)),
    "nll": (lambda x: F.nll_loss(x, CLASSES, md.tensor([1.0, 2, 3]).to(x.dtype)), (4, 3)),
    "smoothing": (lambda x: F.cross_entropy(x, CLASSES, label_smoothing=0.1), (4, 3)),
    "bce": (lambda x: F.binary_cross_entropy(x.sigmoid(), x.sigmoid()), (4, 3)),
}  # fmt: skip


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", SAME)
def test_they_compute_on_numbers(name, dtype):
    call, shape = SAME[name]
    x = md.tensor(numbers(*shape)).to(dtype)
    found, exact = call(x).float().data, call(x.float()).data
    assert np.abs(found - exact).max() <= 2.0**-6 * max(1, np.abs(exact).max())


@pytest.mark.parametrize("dtype", HALVES)
def test_running_statistics(dtype):
    x = numbers(50, 3) + 4
    norms = [nn.BatchNorm1d(3, dtype=d) for d in (dtype, "float32")]
    for norm in norms:
        norm(md.tensor(x).to(norm.weight.dtype))
    for name in ("running_mean", "running_var"):
        found, exact = (getattr(n, name).float().data for n in norms)
        assert np.abs(found - exact).max() < 0.01
    y, z = (n.eval()(md.tensor(x).to(n.weight.dtype)).float().data for n in norms)
    assert np.abs(y - z).max() < 0.05


@pytest.mark.parametrize("dtype", HALVES)
def test_dropped_probabilities_are_scaled(dtype):
    x = md.ones(1, 2, 200, 4, dtype=dtype)
    assert F.scaled_dot_product_attention(x, x, x, dropout_p=0.4).float().mean().item() > 0.95


MASKS = (None, np.triu(np.ones((5, 5), bool), 1), np.triu(np.full((5, 5), -np.inf, "f"), 1))


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("mask", MASKS, ids=["no mask", "bools", "floats"])
def test_attention_with_masks(mask, need_weights, dtype):
    layer, x = nn.MultiheadAttention(8, 2), md.tensor(numbers(5, 2, 8))
    mask = None if mask is None else md.tensor(mask)
    y = layer(x, x, x, attn_mask=mask, need_weights=need_weights)[0]
    with md.autocast("cpu", dtype):
        lowered = layer(x, x, x, attn_mask=mask, need_weights=need_weights)[0]
    mask = mask if mask is None or mask.dtype == bool else mask.to(dtype)
    x = x.to(dtype)
    whole = layer.to(dtype)(x, x, x, attn_mask=mask, need_weights=need_weights)[0]
    for z in (lowered, whole):
        assert z.dtype == dtypes.DTYPES[dtype] and (z.float() - y).abs().max().item() < 0.02


def test_dropout_between_recurrent_layers():
    rnn = nn.LSTM(3, 4, 2, dropout=0.5).bfloat16()
    assert rnn(bf(numbers(5, 2, 3)))[0].dtype == BF


# Autocast


@pytest.mark.parametrize("dtype", HALVES)
def test_a_checkpoint_computes_again_as_it_did(dtype):
    layer, x = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), md.tensor(numbers(3, 4))
    found = []
    for call in (lambda: layer(x), lambda: md.checkpoint(layer, x)):
        layer.zero_grad()
        with md.autocast("cpu", dtype):
            loss = (call() ** 2).sum()
        loss.backward()  # outside
        found.append([p.grad.tolist() for p in layer.parameters()])
    assert found[0] == found[1]


def test_a_checkpoint_from_outside_stays_outside():
    layer = nn.Linear(4, 4)
    y = md.checkpoint(layer, md.tensor(numbers(3, 4)))
    with md.autocast("cpu"):
        y.sum().backward()
    assert layer.weight.grad.dtype == "float32"


@pytest.mark.parametrize("dtype", HALVES)
def test_batch_norm_of_a_product(dtype):
    layer, x = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3)), md.tensor(numbers(8, 3))
    exact = layer(x)
    with md.autocast("cpu", dtype):
        y = layer(x)
    assert (y.float() - exact).abs().max().item() < 0.02


def test_a_recurrent_layer_takes_a_product():
    model = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 4))
    with md.autocast("cpu"):
        assert model(md.tensor(numbers(5, 2, 3)))[0].dtype == BF
    with pytest.raises(ValueError, match="LSTM: bfloat16 input, float32 weights"):
        model[1](bf(numbers(5, 2, 3)))


def test_einsum_is_a_product():
    with md.autocast("cpu"):
        assert md.einsum("ij,kj->ik", md.ones(2, 3), md.ones(4, 3)).dtype == BF


@pytest.mark.parametrize("dtype", HALVES)
def test_a_fused_loss_is_float32(dtype):
    """In 16 bits, the factor of a GradScaler would be infinite, and a sum coarse."""
    w, x = (nn.Parameter(md.tensor(numbers(*s))) for s in ((50, 8), (6, 8)))
    classes = md.tensor([1, 2, 3, 4, 5, 6])
    with md.autocast("cpu", dtype):
        fused = F.linear_cross_entropy(x, w, classes)
        plain = F.cross_entropy(F.linear(x, w), classes)
    assert fused.dtype == plain.dtype == "float32" and abs((fused - plain).item()) < 0.01
    (fused * 2.0**16).backward()
    assert w.grad.isfinite().all() and x.grad.isfinite().all()
    y = F.linear_cross_entropy(x.detach().to(dtype), w.detach().to(dtype), classes)
    assert y.dtype == dtypes.DTYPES[dtype]


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
def test_ignored_rows_of_a_fused_loss_get_no_gradient(reduction):
    classes, found = md.tensor([1, 2, -100, 4]), []
    for loss in (
        lambda x, w: F.linear_cross_entropy(x, w, classes, reduction=reduction),
        lambda x, w: F.cross_entropy(F.linear(x, w), classes, reduction=reduction),
    ):
        x, w = (nn.Parameter(md.tensor(numbers(*s))) for s in ((4, 8), (9, 8)))
        loss(x, w).sum().backward()
        found.append((x.grad.data, w.grad.data))
    for a, b in zip(*found):
        np.testing.assert_allclose(a, b, atol=1e-5)


def test_two_steps_without_an_update_are_refused():
    """The gradients of the second would be scaled still."""
    p, scaler = nn.Parameter(md.ones(2)), GradScaler()
    optimizer = optim.SGD([p])
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)
    with pytest.raises(RuntimeError, match=r"step\(\) was called .* since the last update"):
        scaler.step(optimizer)
    scaler.update()
    optimizer.zero_grad()
    scaler.scale(p.sum()).backward()
    scaler.step(optimizer)


def test_a_state_dict_of_before_holds_the_bits_of_bfloat16():
    """Users saved state_dict() by safetensors, which wrote uint16: 16256 is 1, not 16256."""
    layer = nn.Linear(2, 1, bias=False).bfloat16()
    layer.load_state_dict({"weight": np.array([[16256, 16384]], np.uint16)})
    assert layer.weight.tolist() == [[1.0, 2.0]]
    layer.load_state_dict({"weight": np.array([[3, 4]], np.int64)})
    assert layer.weight.tolist() == [[3.0, 4.0]], "integers are numbers"


def test_what_is_no_number_is_refused_with_the_operation():
    for dtype in ("float32", "bfloat16"):
        with pytest.raises(RuntimeError, match="fill_: into"):
            md.zeros(3, dtype=dtype).fill_("one")
