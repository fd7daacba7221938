"""Every layer and every optimiser on a GPU (its double), beside the CPU; no hidden copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogue import few
from support.catalogue_layers import LAYERS, run
from support.double import copies, gpu
from support.proofs import keeping

import minidist as md
from minidist import Tensor, nn, optim

ASKS = {"CTCLoss": "lengths steer its loops"}


def trained(name, module, inputs, device):
    """Outputs and gradients as arrays, after one pass both ways; the copies that it took."""
    xs = [Tensor(np.array(a)).to(device) for a in inputs]
    for x in xs:
        x.requires_grad_(x.is_floating_point())
    md.manual_seed(0)
    copies.clear()
    results = run(name, module, *xs)
    wanted = [y for y in results if y.requires_grad]
    md.autograd.backward(wanted, [md.ones_like(y) for y in wanted])
    asked = +copies
    gradients = [t.grad for t in (*xs, *module.parameters()) if t.grad is not None]
    assert all(t.device.type == device for t in (*results, *gradients))
    module.zero_grad()
    return [t.detach().cpu().data for t in (*results, *gradients)], asked


@pytest.mark.parametrize("name", keeping(set(LAYERS) - {"Transformer"}, LAYERS))
@given(data=st.data())
@few
def test_a_layer_there_is_the_same(name, data):
    make, inputs = data.draw(LAYERS[name])
    md.manual_seed(1)
    module = make(nn).double()
    start = {k: v.copy() for k, v in module.state_dict().items()}
    here, _ = trained(name, module, inputs, "cpu")
    with gpu():
        module.to("cuda").load_state_dict(start)  # what batch norm has counted, too
        there, asked = trained(name, module, inputs, "cuda")
    assert len(here) == len(there)
    for x, y in zip(here, there):
        np.testing.assert_allclose(y, x, rtol=1e-6, atol=1e-8 * max(1, np.abs(x).max(initial=0)))
    assert name in ASKS or not asked


OPTIMIZERS = {
    "SGD": {"momentum": 0.9, "nesterov": True}, "Adam": {"amsgrad": True}, "Lion": {}, "Muon": {},
    "AdamW": {"weight_decay": 0.1}, "Adagrad": {}, "RMSprop": {"centered": True, "momentum": 0.5},
}  # fmt: skip


def test_every_optimizer_is_here():
    kinds = {n for n, c in vars(optim).items() if isinstance(c, type) and hasattr(c, "update")}
    assert kinds - {"Optimizer"} == OPTIMIZERS.keys()


def minimised(name, device):
    md.manual_seed(1)
    model = nn.Sequential(nn.Linear(5, 4), nn.GELU(), nn.Linear(4, 3)).to(device)
    params = [p for p in model.parameters() if p.ndim == 2 or name != "Muon"]
    optimizer = getattr(optim, name)(params, lr=0.05, **OPTIMIZERS[name])
    x = Tensor(np.random.default_rng(0).standard_normal((6, 5)).astype("f")).to(device)
    for _ in range(3):
        model(x).square().mean().backward()
        copies.clear()
        optimizer.step()
        assert not +copies
        optimizer.zero_grad()
    return [p.detach().cpu().data for p in model.parameters()]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimizer_there_is_the_same(name):
    here = minimised(name, "cpu")
    with gpu():
        there = minimised(name, "cuda")
    for x, y in zip(here, there):
        np.testing.assert_allclose(y, x, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("norm_type", [2, 1, np.inf])
@pytest.mark.parametrize("most", [0.1, 1e3])
def test_gradients_are_clipped_there_without_a_look(norm_type, most):
    def clipped(device):
        params = [nn.Parameter(md.zeros(n)).to(device) for n in (3, 5000, 0)]
        for i, p in enumerate(params):
            p.grad = md.tensor(np.random.default_rng(i).standard_normal(p.shape)).to(p)
        copies.clear()
        norm = optim.clip_grad_norm_(params, most, norm_type)
        assert not +copies
        return [norm.cpu().data, *(p.grad.cpu().data for p in params)]

    here = clipped("cpu")
    with gpu():
        there = clipped("cuda")
    for x, y in zip(here, there):
        np.testing.assert_allclose(y, x, rtol=1e-6)
        assert x.dtype == y.dtype
