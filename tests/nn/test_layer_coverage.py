"""No public layer goes unchecked: by finite differences, beside PyTorch, and what it says."""

import pytest
from cases import numbers
from catalogue_layers import LAYERS, RUNS
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parity import assert_close, compare, to_torch, torch

from minidist import Tensor, nn
from minidist.testing import gradcheck

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")  # PyTorch's
few = settings(max_examples=5, suppress_health_check=list(HealthCheck))
ENTRIES = 60  # beyond, one random direction is looked at instead of every entry


def public() -> set[str]:
    kinds = {n: c for n, c in vars(nn).items() if isinstance(c, type) and issubclass(c, nn.Module)}
    return kinds.keys() - {"Module"}


def flat(result) -> list:
    """All tensors of a result, nested or not."""
    if isinstance(result, tuple | list):
        return [t for part in result for t in flat(part)]
    return [] if result is None else [result]


def run(name, module, *inputs):
    return flat(RUNS.get(name, lambda module, *x: module(*x))(module, *inputs))


def twins(make, dtype="float64"):
    """The same module in both libraries, every number of its state random and equal."""
    ours, theirs = make(nn).to(dtype), make(torch.nn).to(getattr(torch, dtype))
    state = theirs.state_dict()
    for i, (key, value) in enumerate(state.items()):
        if value.is_floating_point():
            drawn = numbers(tuple(value.shape), i, dtype) / 2
            value.copy_(to_torch(abs(drawn) if "var" in key else drawn))
    theirs.load_state_dict(state)
    assert ours.load_state_dict(state) == ([], [])
    assert list(ours.state_dict()) == list(state)
    return ours, theirs


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
    module, _ = twins(make)
    assert isinstance(module, getattr(nn, name))
    parameters = list(module.parameters())
    entries = sum(p.numel() for p in parameters) + sum(x.size for x in inputs)

    def outputs(*tensors):
        results = run(name, module, *tensors[: len(inputs)])
        return tuple(y for y in results if y.is_floating_point())

    gradcheck(outputs, [*inputs, *parameters], fast_mode=entries > ENTRIES)


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data(), dtype=st.sampled_from(["float64", "float32"]))
@settings(few, max_examples=7)
def test_parity(name, data, dtype):
    make, inputs = data.draw(LAYERS[name])
    ours, theirs = twins(make, dtype)
    bound = 2e-12 if dtype == "float64" else 2e-4
    for k in range(len(run(name, ours, *map(Tensor, cast(inputs, dtype))))):
        ours.zero_grad(), theirs.zero_grad()
        compare(
            lambda *x, k=k: run(name, ours, *x)[k], lambda *x, k=k: run(name, theirs, *x)[k],
            inputs, dtype,
        )  # fmt: skip
        for (key, p), q in zip(ours.named_parameters(), theirs.parameters(), strict=True):
            assert (p.grad is None) == (q.grad is None), key
            if q.grad is not None:
                assert_close(key, p.grad.data, q.grad, bound)


def cast(inputs, dtype):
    return [x.astype(dtype) if x.dtype.kind == "f" else x for x in inputs]


@pytest.mark.parametrize("name", LAYERS)
@given(data=st.data())
@settings(few, max_examples=2)
def test_it_prints_as_pytorchs(name, data):
    make, _ = data.draw(LAYERS[name])
    ours, theirs = repr(make(nn)), repr(make(torch.nn))
    theirs = theirs.replace("NonDynamicallyQuantizableLinear", "Linear")
    same = lambda text: text.replace(", bias=True", "")  # older versions say less
    assert same(ours) == same(theirs)
