"""No public layer goes unchecked: each has a case, and passes gradcheck."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.cases import numbers
from support.catalogue import few
from support.catalogue_layers import LAYERS, run

from minidist import nn
from minidist.testing import gradcheck

ENTRIES = 60  # beyond, one random direction is looked at instead of every entry


def public() -> set[str]:
    kinds = {n: c for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    return kinds.keys() - {"Module"}


def test_every_layer_is_in_the_catalogue():
    assert public() == LAYERS.keys()


def test_a_layer_that_is_not_is_seen(monkeypatch):
    monkeypatch.setattr(nn, "Novel", type("Novel", (nn.Module,), {}), raising=False)
    assert public() - LAYERS.keys() == {"Novel"}


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data())
@few
def test_gradients(name, data):
    make, inputs = data.draw(LAYERS[name])
    module = make(nn).double()
    for i, p in enumerate(module.parameters()):
        p.data = numbers(p.shape, i) / 2
    assert isinstance(module, getattr(nn, name))
    parameters = list(module.parameters())
    entries = sum(p.numel() for p in parameters) + sum(x.size for x in inputs)

    def outputs(*tensors):
        results = run(name, module, *tensors[: len(inputs)])
        return tuple(y for y in results if y.is_floating_point())

    gradcheck(outputs, [*inputs, *parameters], fast_mode=entries > ENTRIES)
