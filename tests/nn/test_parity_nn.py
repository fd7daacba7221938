"""Modules, optimisers and a whole GPT beside PyTorch's."""

import re

import numpy as np
import pytest
from support.cases import numbers
from support.parity import assert_close, compare, error_of, to_torch, torch

import minidist as md
from minidist import Tensor, nn, optim
from minidist.models.gpt import GPT, GPTConfig

F = torch.nn.functional

LAYERS = {
    "Linear": (lambda m: m.Linear(4, 3), (2, 4)),
    "Linear without bias": (lambda m: m.Linear(4, 3, bias=False), (5, 2, 4)),
    "LayerNorm": (lambda m: m.LayerNorm(4), (2, 4)),
    "LayerNorm over two": (lambda m: m.LayerNorm((2, 4), eps=0.1), (3, 2, 4)),
    "Embedding": (lambda m: m.Embedding(5, 4), None),
    "GELU": (lambda m: m.GELU(), (2, 4)),
    "GELU tanh": (lambda m: m.GELU("tanh"), (2, 4)),
    "Conv2d": (lambda m: m.Conv2d(4, 6, 3, padding=1), (2, 4, 5, 6)),
    "Conv2d with all options": (
        lambda m: m.Conv2d(4, 6, (3, 2), (2, 1), (1, 0), (1, 2), 2, False),
        (2, 4, 7, 6),
    ),
    "Conv2d same": (lambda m: m.Conv2d(2, 3, (3, 1), padding="same"), (2, 5, 6)),
    "Conv1d": (lambda m: m.Conv1d(4, 6, 3, stride=2, groups=2), (2, 4, 9)),
    "ConvTranspose2d": (lambda m: m.ConvTranspose2d(4, 6, 3, 2, 1, 1, 2), (2, 4, 5, 6)),
    "MaxPool2d": (lambda m: m.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 3, 6, 6)),
    "MaxPool1d": (lambda m: m.MaxPool1d(2), (2, 3, 6)),
    "AvgPool2d": (lambda m: m.AvgPool2d(3, 2, 1, True, False), (2, 3, 6, 6)),
    "AvgPool2d divisor": (lambda m: m.AvgPool2d((2, 1), divisor_override=3), (2, 3, 6, 6)),
    "AvgPool1d": (lambda m: m.AvgPool1d(3, 1, 1), (2, 3, 6)),
    "AdaptiveAvgPool2d": (lambda m: m.AdaptiveAvgPool2d((2, None)), (2, 3, 5, 6)),
    "AdaptiveAvgPool1d": (lambda m: m.AdaptiveAvgPool1d(4), (2, 3, 6)),
    "BatchNorm1d": (lambda m: m.BatchNorm1d(4), (3, 4)),
    "BatchNorm1d of sequences": (lambda m: m.BatchNorm1d(4, bias=False), (3, 4, 5)),
    "BatchNorm2d": (lambda m: m.BatchNorm2d(4, 0.1, None), (3, 4, 2, 2)),
    "GroupNorm": (lambda m: m.GroupNorm(2, 4), (3, 4, 5)),
    "RMSNorm": (lambda m: m.RMSNorm(4), (3, 4)),
    "LayerNorm without bias": (lambda m: m.LayerNorm(4, bias=False), (3, 4)),
    "LayerNorm plain": (lambda m: m.LayerNorm(4, elementwise_affine=False), (3, 4)),
    "Embedding with padding": (lambda m: m.Embedding(5, 4, 0), None),
    "Flatten": (lambda m: m.Flatten(), (2, 3, 4)),
    "Identity": (lambda m: m.Identity(7), (2, 4)),
    "ReLU": (lambda m: m.ReLU(), (2, 4)),
    "LeakyReLU": (lambda m: m.LeakyReLU(0.2), (2, 4)),
    "ELU": (lambda m: m.ELU(0.7), (2, 4)),
    "SiLU": (lambda m: m.SiLU(), (2, 4)),
    "Sigmoid": (lambda m: m.Sigmoid(), (2, 4)),
    "LogSigmoid": (lambda m: m.LogSigmoid(), (2, 4)),
    "Tanh": (lambda m: m.Tanh(), (2, 4)),
    "Softplus": (lambda m: m.Softplus(2.0, 1.0), (2, 4)),
    "Softmax": (lambda m: m.Softmax(0), (2, 4)),
    "LogSoftmax": (lambda m: m.LogSoftmax(-1), (2, 4)),
    "PReLU": (lambda m: m.PReLU(3), (2, 3, 4)),
    "Dropout": (lambda m: m.Dropout(0.0), (2, 4)),
    "all": (
        lambda m: m.Sequential(
            m.Linear(4, 6), m.GELU(), m.LayerNorm(6), m.ModuleList([m.Linear(6, 2)])[0]
        ),
        (3, 4),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_layers_with_pytorchs_state(name, dtype):
    torch.manual_seed(0)
    make, shape = LAYERS[name]
    theirs, ours = make(torch.nn).to(getattr(torch, dtype)), make(nn).to(dtype)
    state = theirs.state_dict()
    assert list(ours.state_dict()) == list(state)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: tuple(v.shape) for k, v in state.items()
    }
    ours.load_state_dict(state)
    x = np.array([[0, 4, 0]]) if shape is None else numbers(shape, 0)
    compare(ours, theirs, [x], dtype)
    for (key, p), q in zip(ours.named_parameters(), theirs.parameters()):
        assert_close(key, p.grad.data, q.grad, 1e-12 if dtype == "float64" else 2e-5)
    for key, value in theirs.state_dict().items():
        assert_close(key, ours.state_dict()[key], value, 1e-12 if dtype == "float64" else 2e-5)


def test_layers_say_the_same_of_themselves():
    for name, (make, _) in LAYERS.items() - {("all", LAYERS["all"])}:
        ours, theirs = repr(make(nn)), repr(make(torch.nn))
        # PyTorch leaves out some defaults and adds some: what both say must be the same
        assert ours.split("(")[0] == theirs.split("(")[0], name
        values = dict(re.findall(r"(\w+)=([^=]+)(?:, |\)$)", theirs))
        for key, value in re.findall(r"(\w+)=([^=]+)(?:, |\)$)", ours):
            assert values.get(key, value).strip("'(),") == value.strip("'(),"), f"{ours} | {theirs}"


class Net:
    """A small CNN, written once for both: convolution, batch norm, pooling, ties, a buffer."""

    def __new__(cls, lib):
        class Model(lib.Module):
            def __init__(self):
                super().__init__()
                self.features = lib.Sequential(
                    lib.Conv2d(3, 8, 3, padding=1, bias=False), lib.BatchNorm2d(8), lib.ReLU(),
                    lib.MaxPool2d(2), lib.Conv2d(8, 8, 3, groups=2), lib.GroupNorm(2, 8),
                )  # fmt: skip
                self.up = lib.ConvTranspose2d(8, 4, 2, stride=2)
                self.pool = lib.AdaptiveAvgPool2d(1)
                self.tied = lib.ModuleDict({"a": lib.Linear(4, 4), "b": lib.Linear(4, 4)})
                self.tied["b"].weight = self.tied["a"].weight

            def forward(self, x):
                y = self.pool(self.up(self.features(x))).flatten(1)
                return self.tied["b"](self.tied["a"](y))

        return Model()


def test_a_state_dict_of_pytorchs_through_safetensors(tmp_path):
    numpy_io = pytest.importorskip("safetensors.numpy")
    torch_io = pytest.importorskip("safetensors.torch")
    torch.manual_seed(0)
    theirs, ours = Net(torch.nn).double(), Net(nn).double()
    for seed in range(3):  # running statistics that are not their first values
        theirs(to_torch(numbers((4, 3, 8, 8), seed)))
    state = {k: v.clone() for k, v in theirs.state_dict().items()}
    torch_io.save_file(state, tmp_path / "model.safetensors")
    loaded = numpy_io.load_file(tmp_path / "model.safetensors")
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert ours.load_state_dict(loaded) == ([], [])
    assert ours.tied["b"].weight is ours.tied["a"].weight
    x = numbers((2, 3, 8, 8), 9)
    for mode in (True, False):
        compare(ours.train(mode), theirs.train(mode), [x])
    numpy_io.save_file(ours.state_dict(), tmp_path / "back.safetensors")
    back = torch_io.load_file(tmp_path / "back.safetensors")
    theirs.load_state_dict(back)
    assert_close("back", ours(Tensor(x)).data, theirs(to_torch(x)), 1e-12)


def test_errors_of_state_dicts_are_of_pytorchs_class():
    for change in (
        lambda state: state.pop("tied.a.bias"),
        lambda state: state.update(extra=state["up.bias"]),
        lambda state: state.update({"up.bias": state["tied.a.weight"]}),
    ):
        kinds = []
        for lib in (nn, torch.nn):
            model = Net(lib)
            state = dict(model.state_dict())
            change(state)
            kinds.append(error_of(lambda m=model, s=state: m.load_state_dict(s)))
        assert kinds[0] is kinds[1] is RuntimeError


def test_trained_together():
    """Ten steps of a CNN with batch norm: the same losses, weights and running statistics."""
    theirs, ours = Net(torch.nn).double(), Net(nn).double()
    ours.load_state_dict(theirs.state_dict())
    a = optim.SGD(ours.parameters(), lr=0.1)
    b = torch.optim.SGD(theirs.parameters(), lr=0.1)
    for step in range(10):
        x, t = numbers((4, 3, 8, 8), step), np.arange(4)
        loss = nn.functional.cross_entropy(ours(Tensor(x)), Tensor(t))
        twin = F.cross_entropy(theirs(to_torch(x)), to_torch(t))
        for optimizer, value in ((a, loss), (b, twin)):
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        assert loss.item() == pytest.approx(twin.item(), rel=1e-9)
    for key, value in theirs.state_dict().items():
        assert_close(key, ours.state_dict()[key], value, 1e-9)


def test_initial_distributions_have_pytorchs_spread():
    md.manual_seed(0)
    torch.manual_seed(0)
    for make in (
        lambda m: m.Linear(300, 200),
        lambda m: m.Embedding(200, 300),
        lambda m: m.Conv2d(40, 50, 3),
        lambda m: m.ConvTranspose2d(40, 60, 3, groups=2),
        lambda m: m.Conv1d(60, 200, 2, groups=2),
    ):
        for p, q in zip(make(nn).parameters(), make(torch.nn).parameters()):
            q = q.detach().numpy()
            assert abs(p.data.std() / q.std() - 1) < 0.1 and p.dtype == q.dtype
            assert abs(np.abs(p.data).max() / np.abs(q).max() - 1) < 0.2


# Optimisers

OPTIMIZERS = {
    "SGD": lambda m, p: m.SGD(p, lr=0.05),
    "momentum": lambda m, p: m.SGD(p, lr=0.05, momentum=0.9),
    "SGD with decay": lambda m, p: m.SGD(p, lr=0.05, momentum=0.8, weight_decay=0.1),
    "AdamW": lambda m, p: m.AdamW(p),
    "AdamW with options": lambda m, p: m.AdamW(
        p, lr=0.03, betas=(0.7, 0.95), eps=1e-4, weight_decay=0.2),
    "groups": lambda m, p: m.AdamW(
        [{"params": p[:1], "weight_decay": 0.0}, {"params": p[1:], "lr": 0.02}], lr=0.01),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_fifty_steps_are_pytorchs(name):
    start = [numbers((3, 2), 0), numbers((4,), 1)]
    ours = [nn.Parameter(a.copy()) for a in start]
    theirs = [torch.nn.Parameter(to_torch(a)) for a in start]
    a, b = OPTIMIZERS[name](optim, ours), OPTIMIZERS[name](torch.optim, theirs)
    for step in range(50):
        for i, (p, q) in enumerate(zip(ours, theirs)):
            g = numbers(p.shape, 100 * step + i) * (1 + step % 3)
            p.grad, q.grad = Tensor(g), to_torch(g)
        norm = optim.clip_grad_norm_(ours, 2.5).item()
        assert norm == pytest.approx(torch.nn.utils.clip_grad_norm_(theirs, 2.5).item(), rel=1e-12)
        a.step()
        b.step()
    for p, q, first in zip(ours, theirs, start):
        assert_close(name, p.data, q, 1e-10)
        assert np.abs(p.data - first).max() > 0.01


def test_adam_without_decoupled_decay_is_killed():
    """The control: another rule with the same numbers is far away."""
    p, q = nn.Parameter(numbers((4,), 0)), torch.nn.Parameter(to_torch(numbers((4,), 0)))
    a, b = optim.AdamW([p], weight_decay=0.1), torch.optim.Adam([q], weight_decay=0.1)
    for step in range(50):
        p.grad, q.grad = Tensor(numbers((4,), step)), to_torch(numbers((4,), step))
        a.step(), b.step()
    with pytest.raises(AssertionError, match="off by"):
        assert_close("AdamW", p.data, q, 1e-10)


def test_state_dicts_have_pytorchs_keys():
    p, q = nn.Parameter(numbers((4,), 0)), torch.nn.Parameter(to_torch(numbers((4,), 0)))
    for make in OPTIMIZERS["momentum"], OPTIMIZERS["AdamW"]:
        a, b = make(optim, [p]), make(torch.optim, [q])
        p.grad, q.grad = Tensor(np.ones(4)), torch.ones(4, dtype=torch.float64)
        a.step(), b.step()
        ours, theirs = a.state_dict(), b.state_dict()
        assert ours["param_groups"][0]["params"] == theirs["param_groups"][0]["params"]
        assert set(ours["param_groups"][0]) <= set(theirs["param_groups"][0])
        assert set(theirs["state"][0]) <= set(ours["state"][0]) <= {*theirs["state"][0], "step"}
        for key, value in theirs["state"][0].items():
            np.testing.assert_allclose(ours["state"][0][key], np.asarray(value), rtol=1e-14)


# A GPT


class TwinBlock(torch.nn.Module):
    def __init__(self, c: GPTConfig):
        super().__init__()
        h, self.heads = c.hidden, c.heads
        self.ln_1, self.ln_2 = torch.nn.LayerNorm(h), torch.nn.LayerNorm(h)
        self.c_attn, self.c_proj = torch.nn.Linear(h, 3 * h), torch.nn.Linear(h, h)
        self.c_fc, self.mlp_proj = torch.nn.Linear(h, 4 * h), torch.nn.Linear(4 * h, h)

    def forward(self, x):
        b, s, h = x.shape
        q, k, v = (
            part.view(b, s, self.heads, -1).transpose(1, 2)
            for part in self.c_attn(self.ln_1(x)).split(h, 2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.c_proj(y.transpose(1, 2).reshape(b, s, h))
        return x + self.mlp_proj(F.gelu(self.c_fc(self.ln_2(x)), approximate="tanh"))


class Twin(torch.nn.Module):
    def __init__(self, c: GPTConfig):
        super().__init__()
        self.wte = torch.nn.Embedding(c.vocab, c.hidden)
        self.wpe = torch.nn.Embedding(c.positions, c.hidden)
        self.h = torch.nn.ModuleList(TwinBlock(c) for _ in range(c.layers))
        self.ln_f = torch.nn.LayerNorm(c.hidden)

    def forward(self, index):
        x = self.wte(index) + self.wpe.weight[: index.shape[1]]
        for block in self.h:
            x = block(x)
        return self.ln_f(x) @ self.wte.weight.T


CONFIG = GPTConfig(layers=2, hidden=24, heads=3, positions=70, vocab=50)


@pytest.mark.parametrize("dtype, bound", [("float64", 1e-12), ("float32", 2e-5)])
def test_a_gpt_and_its_twin(dtype, bound):
    ours, theirs = GPT(CONFIG, seed=1).to(dtype), Twin(CONFIG).to(getattr(torch, dtype))
    for i, p in enumerate(ours.parameters()):
        p.data += 0.1 * numbers(p.shape, i, dtype)
    theirs.load_state_dict({k: to_torch(v) for k, v in ours.state_dict().items()})
    rng = np.random.default_rng(0)
    index, target = rng.integers(0, 50, (2, 3, 67))
    loss = ours.loss(Tensor(index), Tensor(target))
    twin = F.cross_entropy(theirs(to_torch(index)).view(-1, 50), to_torch(target).view(-1))
    loss.backward()
    twin.backward()
    assert_close("loss", loss.data, twin, bound)
    for (name, p), (other, q) in zip(ours.named_parameters(), sorted_as(ours, theirs)):
        assert name == other
        assert_close(name, p.grad.data, q.grad, bound)
        assert np.abs(p.grad.data).max() > 1e-4, f"{name}: something to compare"


def sorted_as(ours, theirs):
    named = dict(theirs.named_parameters())
    assert set(named) == {n for n, _ in ours.named_parameters()}
    return [(n, named[n]) for n, _ in ours.named_parameters()]


def test_twins_trained_together():
    """Ten steps of AdamW with clipping: the same losses and weights."""
    ours, theirs = GPT(CONFIG).double(), Twin(CONFIG).double()
    theirs.load_state_dict({k: to_torch(v) for k, v in ours.state_dict().items()})
    a = optim.AdamW(ours.parameters(), lr=1e-2)
    b = torch.optim.AdamW(theirs.parameters(), lr=1e-2)
    rng = np.random.default_rng(0)
    for _ in range(10):
        index, target = rng.integers(0, 50, (2, 2, 8))
        loss = ours.loss(Tensor(index), Tensor(target))
        twin = F.cross_entropy(theirs(to_torch(index)).view(-1, 50), to_torch(target).view(-1))
        for optimizer, value in ((a, loss), (b, twin)):
            optimizer.zero_grad()
            value.backward()
        assert loss.item() == pytest.approx(twin.item(), rel=1e-9)
        optim.clip_grad_norm_(ours.parameters(), 0.5)
        torch.nn.utils.clip_grad_norm_(theirs.parameters(), 0.5)
        a.step(), b.step()
    for (name, p), (_, q) in zip(ours.named_parameters(), sorted_as(ours, theirs)):
        assert_close(name, p.data, q, 1e-8)
