"""Modules: the tree of parameters, its state, and the layers."""

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from support.cases import numbers

import minidist as md
from minidist import Tensor, nn
from minidist.testing import gradcheck


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same weights, whichever ran before it."""
    md.manual_seed(0)


class Tied(nn.Module):
    """Two layers, one of them twice, and a weight that belongs to two."""

    def __init__(self):
        self.embedding = nn.Embedding(4, 3)
        self.body = nn.Sequential(nn.Linear(3, 3), nn.GELU("tanh"), nn.Dropout(0.5), nn.ReLU())
        self.norm = nn.LayerNorm(3)
        self.head = nn.Linear(3, 4, bias=False)
        self.head.weight = self.embedding.weight
        self.scale = nn.Parameter(np.ones(1, "float32"))
        self.name = "not a parameter"

    def forward(self, index):
        return self.head(self.norm(self.body(self.embedding(index)))) * self.scale


NAMES = ["scale", "embedding.weight", "body.0.weight", "body.0.bias", "norm.weight", "norm.bias"]


def test_names_and_tied_parameters():
    model = Tied()
    assert [n for n, _ in model.named_parameters()] == NAMES
    assert len(list(model.parameters())) == 6
    assert sorted(model.state_dict()) == sorted([*NAMES, "head.weight"])
    assert [n for n, _ in model.named_modules()] == [
        "", "embedding", "body", "body.0", "body.1", "body.2", "body.3", "norm", "head",
    ]  # fmt: skip


def test_a_tied_weight_gets_the_gradients_of_both_uses():
    model = Tied().eval()
    model(md.tensor([0, 1])).sum().backward()
    both = model.embedding.weight.grad.data.copy()
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())
    model.head.weight = nn.Parameter(model.embedding.weight.data.copy())
    model(md.tensor([0, 1])).sum().backward()
    one = model.embedding.weight.grad.data + model.head.weight.grad.data
    np.testing.assert_allclose(both, one, rtol=1e-5, atol=1e-6)


def test_state_is_shared_out_and_copied_in():
    a, b = Tied(), Tied()
    state = a.state_dict()
    assert state["scale"] is a.scale.data
    array = b.norm.weight.data
    b.load_state_dict({k: v + 1 for k, v in state.items()})
    assert b.norm.weight.data is array and array.tolist() == [2, 2, 2]
    for name, value in b.state_dict().items():
        np.testing.assert_array_equal(value, state[name] + 1)


LAYOUTS = {
    "transposed": lambda a: a.T,
    "in steps": lambda a: np.repeat(a, 2, 1)[:, ::2],
    "backwards": lambda a: a[::-1],
    "by columns": np.asfortranarray,
}


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_state_can_be_saved_as_it_is(layout, dtype, tmp_path):
    model = nn.Linear(4, 4).to(dtype)
    array = Tensor(np.arange(16.0).reshape(4, 4), dtype=dtype).data
    model.weight.data = LAYOUTS[layout](array)
    save_file(model.state_dict(), tmp_path / "model")
    saved = load_file(tmp_path / "model")["weight"]
    assert saved.tolist() == model.weight.data.tolist()
    with pytest.raises(ValueError, match="read-only"):  # a write would be lost
        model.state_dict()["weight"][...] = 0


def test_loading_converts_to_the_dtype_there_is():
    layer = nn.Linear(2, 1)
    layer.load_state_dict({"weight": np.ones((1, 2)), "bias": md.tensor([2.0], "float64")})
    assert layer.weight.dtype == md.float32 and layer.bias.tolist() == [2]


def test_loading_is_strict_and_changes_nothing_when_it_fails():
    layer = nn.Linear(2, 1)
    before = layer.weight.data.copy()
    good = {k: v * 0 for k, v in layer.state_dict().items()}
    for state, words in (
        ({"weight": good["weight"]}, r"missing \['bias'\], unexpected \[\]"),
        ({**good, "extra": 1}, r"unexpected \['extra'\]"),
        ({**good, "bias": np.ones(2)}, r"bias is \(1,\), got \(2,\)"),
    ):
        with pytest.raises(RuntimeError, match=words):
            layer.load_state_dict(state)
    np.testing.assert_array_equal(layer.weight.data, before)
    layer.load_state_dict({"bias": [5.0], "extra": 1}, strict=False)
    assert layer.bias.tolist() == [5]


def test_train_and_eval_reach_every_module():
    model = Tied()
    assert model.training and model.eval() is model
    assert not any(m.training for m in model.modules())
    index = md.tensor([0, 1, 2, 3] * 10)
    np.testing.assert_array_equal(model(index).data, model(index).data)
    assert all(m.training for m in model.train().modules())
    assert (model(index).data != model(index).data).any(), "dropout draws anew"


def test_requires_grad_freezes():
    model = Tied().requires_grad_(False)
    assert not model(md.tensor([0])).requires_grad
    assert model.requires_grad_()(md.tensor([0])).requires_grad


def test_conversion_keeps_ties_and_takes_gradients_and_buffers_along():
    model = Tied()
    model.register_buffer("mean", md.ones(2))
    model.register_buffer("count", md.tensor(3))
    model(md.tensor([1])).sum().backward()
    assert model.double() is model
    assert {p.dtype.name for p in model.parameters()} == {"float64"}
    assert model.head.weight is model.embedding.weight and model.scale.grad.dtype == md.float64
    assert model.mean.dtype == md.float64 and model.count.dtype == md.int64
    assert model(md.tensor([0])).dtype == md.float64


def test_repr():
    model = nn.Sequential(nn.Linear(2, 3), nn.ModuleList([nn.LayerNorm(3), nn.ReLU()]))
    assert repr(model) == (
        "Sequential(\n"
        "  (0): Linear(in_features=2, out_features=3, bias=True)\n"
        "  (1): ModuleList(\n"
        "    (0): LayerNorm((3,), eps=1e-05, elementwise_affine=True, bias=True)\n"
        "    (1): ReLU()\n"
        "  )\n"
        ")"
    )
    assert repr(nn.Dropout(0.25)) == "Dropout(p=0.25, inplace=False)"
    assert repr(nn.GELU()) == "GELU(approximate='none')"
    assert repr(nn.Parameter([1.0])).startswith("Parameter containing:\ntensor([1.]")


def test_containers():
    layers = nn.ModuleList([nn.ReLU()]).append(nn.GELU())
    assert len(layers) == 2 and layers[-1] is list(layers)[1]
    assert nn.Sequential()(3) == 3
    with pytest.raises(NotImplementedError, match=r"Plain defines no forward\(\)"):
        type("Plain", (nn.Module,), {})()(1)


def test_a_parameter_is_contiguous_whatever_it_was_made_of():
    p = nn.Parameter(np.ones((3, 2)).T)
    assert p.data.flags.c_contiguous and p.requires_grad
    array = np.ones((2, 3))
    assert nn.Parameter(array).data is array, "shared where it can be"
    assert nn.Parameter(2.0).shape == ()
    with pytest.raises(RuntimeError, match="not int64"):
        nn.Parameter([1])


def test_sequential_by_name_index_and_slice():
    named = nn.Sequential({"first": nn.Linear(2, 3), "second": nn.ReLU()})
    assert list(named.state_dict()) == ["first.weight", "first.bias"]
    assert named.first is named[0] and named[-1] is named.second
    part = named[1:]
    assert isinstance(part, nn.Sequential) and list(part) == [named.second]
    numbered = nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU())[1:]
    assert [name for name, _ in numbered.named_children()] == ["1", "2"]  # as in PyTorch
    named[0] = nn.Identity(54, unused=True)
    assert list(named.state_dict()) == [] and isinstance(named.first, nn.Identity)
    with pytest.raises(TypeError, match="int is not a Module"):
        nn.ModuleList([3])
    with pytest.raises(IndexError):
        named[2]


def test_module_dict():
    blocks = nn.ModuleDict({"a": nn.Linear(1, 2), "b": nn.ReLU()})
    blocks["c"] = nn.Tanh()
    assert list(blocks) == ["a", "b", "c"] == list(blocks.keys()) and len(blocks) == 3
    assert blocks["b"] is blocks.b and "c" in blocks and "d" not in blocks
    assert dict(blocks.items()) == dict(zip(blocks, blocks.values()))
    del blocks["b"]
    assert list(blocks) == ["a", "c"] and list(blocks.state_dict()) == ["a.weight", "a.bias"]
    for name in ("", "x.y", "forward", "training"):
        with pytest.raises(KeyError, match="cannot be named"):
            blocks[name] = nn.ReLU()
    with pytest.raises(KeyError):
        blocks["b"]


# Buffers, parameters, hooks


class Counter(nn.Module):
    """A parameter, one that is absent, and buffers of both kinds around a child."""

    def __init__(self):
        self.register_buffer("seen", md.tensor(0))
        self.child = nn.BatchNorm1d(2)
        self.register_buffer("scratch", md.zeros(2), persistent=False)
        self.weight = nn.Parameter([1.0])
        self.register_parameter("bias", None)
        self.register_buffer("absent", None)


def test_buffers():
    model = Counter()
    assert [n for n, _ in model.named_buffers()] == [
        "seen", "scratch", "child.running_mean", "child.running_var", "child.num_batches_tracked",
    ]  # fmt: skip
    assert [n for n, _ in model.named_buffers(recurse=False)] == ["seen", "scratch"]
    assert [n for n, _ in model.named_parameters()] == ["weight", "child.weight", "child.bias"]
    assert list(model.state_dict()) == [
        "weight", "seen", "child.weight", "child.bias", "child.running_mean", "child.running_var",
        "child.num_batches_tracked",
    ]  # fmt: skip
    model.seen = md.tensor(5)  # still the buffer
    assert model.state_dict()["seen"] == 5 and len(list(model.buffers())) == 5
    with pytest.raises(KeyError, match="'child' already exists"):
        model.register_buffer("child", md.zeros(1))
    assert nn.Linear(1, 1)._buffers == {}, "one module's buffers are not another's"


def test_a_parameter_is_not_lost_by_assigning_something_else():
    layer = nn.Linear(2, 1)
    with pytest.raises(TypeError, match=r"weight is a parameter, and Tensor is none.*\.data"):
        layer.weight = md.ones(1, 2)
    layer.bias = None
    assert [n for n, _ in layer.named_parameters()] == ["weight"]


def test_hooks_see_and_replace_and_can_be_removed():
    layer, seen = nn.Identity(), []
    first = layer.register_forward_pre_hook(lambda m, args: seen.append(args))
    second = layer.register_forward_pre_hook(lambda m, args: args[0] + 1)
    after = layer.register_forward_hook(lambda m, args, out: out * 10)
    assert layer(1) == 20 and seen == [(1,)]
    first.remove()
    with after:
        assert layer(1) == 20
    assert layer(1) == 2 and seen == [(1,)]
    second.remove()
    second.remove()
    assert layer(1) == 1 and nn.Identity()(1) == 1, "hooks belong to one module"


def test_apply_visits_children_first():
    model, order = nn.Sequential(nn.ReLU(), nn.Sequential(nn.Tanh())), []
    assert model.apply(lambda m: order.append(type(m).__name__)) is model
    assert order == ["ReLU", "Tanh", "Sequential", "Sequential"]


def test_a_module_with_two_names_comes_once_but_is_saved_twice():
    model = nn.Sequential(nn.Linear(1, 1))
    model.again = model[0]
    assert len(list(model.children())) == 1 and len(list(model.modules())) == 2
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias"]
    assert list(model.state_dict()) == ["0.weight", "0.bias", "again.weight", "again.bias"]


def test_loading_returns_what_did_not_match():
    layer = nn.Linear(2, 1)
    result = layer.load_state_dict({"bias": [5.0], "extra": 1}, strict=False)
    assert result.missing_keys == ["weight"] and result.unexpected_keys == ["extra"]
    missing, unexpected = layer.load_state_dict(layer.state_dict())
    assert missing == [] == unexpected


def test_gradients_are_dropped_or_zeroed():
    layer = nn.Linear(2, 1)
    layer(md.ones(1, 2)).sum().backward()
    array = layer.weight.grad.data
    layer.zero_grad(set_to_none=False)
    assert layer.weight.grad.data is array and array.tolist() == [[0, 0]]
    layer.zero_grad()
    assert layer.weight.grad is None


def test_a_deep_copy_is_of_its_own():
    model = Tied()
    model(md.tensor([0])).sum().backward()
    twin = copy.deepcopy(model)
    assert twin.head.weight is twin.embedding.weight, "ties are kept"
    assert twin.scale.grad is None
    twin.zero_grad()
    model.zero_grad()
    twin(md.tensor([0])).sum().backward()
    assert model.scale.grad is None and twin.scale.grad is not None
    model.scale.data[...] = 7
    assert twin.scale.tolist() == [1]


class Small(nn.Module):
    """A module that pickle can find."""

    def __init__(self):
        self.first, self.second = nn.Linear(2, 3), nn.BatchNorm1d(3)
        self.tied = self.first

    def forward(self, x):
        return self.second(self.first(x)).sum()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_trained_module_can_be_copied_and_pickled(again):
    model, x = Small(), Tensor(numbers((4, 2), 0, "float32"))
    model(x).backward()
    twin = again(model)
    assert twin.tied is twin.first and twin.first.weight.requires_grad
    assert twin(x).item() == model(x).item()
    twin.first.weight.data[...] = 0
    assert np.abs(model.first.weight.data).min() > 0, "memory of its own"


def test_lists_of_modules_change_as_pythons_do():
    a, b, c, d = (nn.Linear(1, i + 1) for i in range(4))
    for kind in (nn.ModuleList, lambda modules: nn.Sequential(*modules)):
        modules = kind([a, b])
        modules.insert(1, c)
        modules += [d]
        assert list(modules) == [a, c, b, d] and list(modules + kind([a])) == [a, c, b, d, a]
        assert modules.pop(0) is a and modules.pop(-1) is d
        del modules[0]
        assert list(modules) == [b] and [n for n, _ in modules.named_children()] == ["0"]
    named = nn.ModuleDict({"a": a, "b": b})
    assert named.pop("a") is a and list(named) == ["b"]
    with pytest.raises(KeyError):
        named.pop("a")


def test_modules_by_dotted_names():
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 3)))
    model.add_module("act", nn.ReLU())
    assert model.get_submodule("0.0") is model[0][0] and model.get_submodule("") is model
    assert model.get_parameter("0.0.bias") is model[0][0].bias
    assert list(model)[-1] is model.act
    with pytest.raises(KeyError, match="'training' already exists"):
        model.eval().add_module("training", nn.ReLU())
    with pytest.raises(AttributeError):
        model.get_submodule("0.7")


def test_ways_to_convert():
    layer = nn.Linear(2, 1)
    assert layer.to("cpu") is layer.cpu() is layer.to(device="cpu") is layer
    assert layer.half().weight.dtype == md.float16
    assert layer.to("cpu", md.float64).weight.dtype == md.float64
    assert layer.to(md.ones(1)).bias.dtype == md.float32
    with pytest.raises(TypeError, match=r"to\(int64\): parameters are of a floating-point dtype"):
        layer.to(md.int64)
    with pytest.raises(RuntimeError, match="device 'cuda'"):
        layer.to("cuda")


def test_data_of_a_parameter_may_be_set_to_a_tensor():
    layer = nn.Linear(2, 1)
    layer.weight.data = md.ones(1, 2)
    assert isinstance(layer.weight.data, np.ndarray) and layer.weight.requires_grad
    assert layer(md.ones(2)).shape == (1,)


def test_what_loading_says():
    layer = nn.Linear(2, 1)
    assert repr(layer.load_state_dict(layer.state_dict())) == "<All keys matched successfully>"
    assert "missing_keys=['weight', 'bias']" in repr(layer.load_state_dict({}, strict=False))


def test_a_pair_is_no_input():
    model = nn.Sequential(nn.LSTM(3, 4), nn.Linear(4, 2))
    with pytest.raises(TypeError, match="Linear: a tuple where a Tensor belongs"):
        model(md.ones(5, 1, 3))


def test_dropout_wants_a_probability():
    with pytest.raises(ValueError, match="want 0 <= p <= 1"):
        nn.Dropout(1.5)


def test_inplace_is_refused():
    for make in (nn.ReLU, nn.SiLU, lambda inplace: nn.Dropout(0.5, inplace)):
        with pytest.raises(ValueError, match="leave it out"):
            make(True)


# Layers


def test_initial_distributions():
    md.manual_seed(0)
    layer = nn.Linear(400, 300)
    for p in (layer.weight, layer.bias):
        assert p.dtype == md.float32 and np.abs(p.data).max() <= 1 / 20
    assert abs(layer.weight.data.std() - 1 / 20 / 3**0.5) < 3e-4
    assert abs(nn.Embedding(300, 400).weight.data.std() - 1) < 0.01
    assert (nn.LayerNorm(4).weight.data == 1).all() and (nn.LayerNorm(4).bias.data == 0).all()
    assert (nn.Linear(3, 3).weight.data != nn.Linear(3, 3).weight.data).any()
    md.manual_seed(0)
    assert (nn.Linear(400, 300).weight.data == layer.weight.data).all()
    assert nn.Linear(2, 3, bias=False).bias is None and nn.Linear(0, 3).weight.shape == (3, 0)


@given(n=st.integers(0, 3), into=st.integers(1, 3), out=st.integers(1, 3))
@settings(max_examples=15)
def test_gradients_of_layers(n, into, out):
    md.manual_seed(1)
    model = nn.Sequential(
        nn.Linear(into, out), nn.GELU(), nn.LayerNorm(out), nn.Linear(out, 2, bias=False)
    ).double()
    # wide apart, for the norm of two nearly equal numbers is steep
    model[0].weight.data[...] = numbers((out, into), n)
    model[2].eps = 0.1
    gradcheck(lambda x, *_: model(x), [numbers((n, into), n), *model.parameters()])


def test_gradients_of_an_embedding_layer_in_several_dimensions():
    layer = nn.Embedding(5, 2).double()
    index = Tensor(np.array([[0, 4, 0], [1, 1, 1]]))
    gradcheck(lambda _: layer(index), [layer.weight])
