"""Modules, optimisers and a whole GPT beside PyTorch's."""

import numpy as np
import pytest
from cases import numbers
from parity import assert_close, compare, to_torch, torch

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
    "ReLU": (lambda m: m.ReLU(), (2, 4)),
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


def test_initial_distributions_have_pytorchs_spread():
    md.manual_seed(0)
    torch.manual_seed(0)
    for make in (lambda m: m.Linear(300, 200), lambda m: m.Embedding(200, 300)):
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
        norm = optim.clip_grad_norm_(ours, 2.5)
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
