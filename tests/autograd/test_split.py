"""Backward in two parts: the bits of one backward, and arrays that go when they are not needed."""

import weakref

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogue import few
from support.catalogue_layers import LAYERS, run

import minidist as md
from minidist import nn
from minidist.autograd.checkpoint import checkpoint
from minidist.autograd.split import WeightBackward, backward_input
from minidist.autograd.tape import source
from minidist.nn import functional as F
from minidist.plan.tape import kept
from minidist.tensor.tensor import Tensor


def swept(name, make, inputs, first, halved):
    """The gradients of inputs and parameters: after one backward, or after two parts."""
    md.manual_seed(1)
    module = make(nn).double()
    xs = [Tensor(x.copy(), requires_grad=x.dtype.kind == "f" and not first) for x in inputs]
    y = [y for y in run(name, module, *xs) if y.requires_grad][:1]
    g = np.random.default_rng(0).standard_normal(y[0].shape).astype(y[0].dtype) if y else None
    if y and halved:
        backward_input(source(y[0]), g, [x for x in xs if x.requires_grad]).backward()
    elif y:
        y[0].backward(Tensor(g))
    return [t.grad for t in (*xs, *module.parameters())]


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data(), first=st.booleans())
@few
def test_every_layer_in_halves_has_the_bits_of_one_backward(name, data, first):
    """`first`: as on a pipeline's first stage, whose inputs want no gradient."""
    make, inputs = data.draw(LAYERS[name])
    whole, halves = (swept(name, make, inputs, first, halved) for halved in (False, True))
    for a, b in zip(whole, halves, strict=True):
        assert (a is None) == (b is None)
        assert a is None or a.data.tobytes() == b.data.tobytes()


def mlp(x, w, v):
    return (F.linear(F.gelu(F.linear(x, w)), v) * w.sum()).tanh()


def leaves(seed=0):
    rng = np.random.default_rng(seed)
    return [Tensor(rng.standard_normal(s), requires_grad=True) for s in ((6, 4), (5, 4), (3, 5))]


def test_weights_have_no_gradient_before_the_second_half():
    x, w, v = leaves()
    later = backward_input(source(mlp(x, w, v)), np.ones((6, 3)), [x])
    assert x.grad is not None and w.grad is None and v.grad is None
    later.backward()
    assert w.grad is not None and v.grad is not None


def test_a_weight_used_thrice_is_summed_in_the_order_of_one_backward():
    def f(x, w):
        y = F.linear(x, w) * 1e8
        y = F.linear(y, w.T.contiguous())
        return F.linear(y * 1e-8, w) + w.sum() * 1e3

    found = []
    for halved in (False, True):
        x, w, _ = leaves()
        y, g = f(x, w), np.random.default_rng(1).standard_normal((6, 5))
        if halved:
            backward_input(source(y), g, [x]).backward()
        else:
            y.backward(Tensor(g))
        found.append((x.grad.data.tobytes(), w.grad.data.tobytes()))
    assert found[0] == found[1]


def test_an_output_that_no_input_reaches():
    x, w, _ = leaves()
    y = (w * 2).sum()
    later = backward_input(source(y), np.ones(()), [x])
    assert x.grad is None and w.grad is None
    later.backward()
    assert (w.grad.data == 2).all()


@pytest.mark.parametrize("layer", ["LSTM", "GRU", "RNN"])
def test_recurrent_products_of_weights_are_of_the_second_half(layer, monkeypatch):
    from minidist.kernels import recurrent

    calls, real = [], recurrent.backward_weight
    monkeypatch.setattr(recurrent, "backward_weight", lambda *a: calls.append(1) or real(*a))
    module, x = getattr(nn, layer)(3, 4), Tensor(np.ones((5, 2, 3), "f4"), requires_grad=True)
    later = backward_input(source(module(x)[0]), np.ones((5, 2, 4), "f4"), [x])
    assert not calls
    later.backward()
    assert calls == [1]


def test_between_the_halves_only_what_weights_need_is_held():
    """Of a GELU its slope goes with the first half; what a linear layer multiplied stays."""
    rng = np.random.default_rng(0)
    first, second = nn.Linear(4, 64), nn.Linear(64, 3)
    x = Tensor(rng.standard_normal((8, 4)).astype("f4"), requires_grad=True)
    y = second(F.gelu(first(x)))
    held = {}
    for name, array in kept(y):
        held.setdefault(name, []).append(weakref.ref(array))
    root, g = source(y), np.ones((8, 3), "f4")
    del y, array
    later = backward_input(root, g, [x])
    alive = {name: [r() is not None for r in refs] for name, refs in held.items()}
    assert alive == {"linear": [True, True], "gelu": [False]}
    later.backward()
    del x
    assert not any(r() is not None for refs in held.values() for r in refs)


def test_recomputed_layers_are_split_too():
    found = []
    for halved in (False, True):
        x, w, v = leaves()
        y = checkpoint(mlp, x, w, v)
        if halved:
            later = backward_input(source(y), np.ones((6, 3)), [x])
            assert w.grad is None and v.grad is None
            later.backward()
        else:
            y.sum().backward()
        found.append([t.grad.data.tobytes() for t in (x, w, v)])
    assert found[0] == found[1]


def test_an_input_changed_in_place_is_refused_in_either_half():
    for early in (True, False):
        x, w, _ = leaves()
        y = F.linear(x, w)
        if early:
            with md.no_grad():
                w.mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                backward_input(source(y), np.ones((6, 5)), [x])
        else:
            later = backward_input(source(y), np.ones((6, 5)), [x])
            with md.no_grad():
                x.mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                later.backward()


def test_late_nodes_in_another_order_change_the_bits(monkeypatch):
    """The control of the test of order above."""
    real = WeightBackward.backward

    def renumbered(self):
        for i, (node, _) in enumerate(self.roots):
            node.order = self.roots[0][0].order + i
        real(self)

    monkeypatch.setattr(WeightBackward, "backward", renumbered)
    with pytest.raises(AssertionError):
        test_a_weight_used_thrice_is_summed_in_the_order_of_one_backward()
