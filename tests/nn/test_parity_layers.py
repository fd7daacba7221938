"""Every public layer beside PyTorch's: values, every gradient, names of its state, its print."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import numbers
from support.catalogue import few
from support.catalogue_layers import LAYERS, run
from support.parity import assert_close, compare, to_torch, torch

from minidist import Tensor, nn

pytestmark = pytest.mark.filterwarnings("ignore:enable_nested_tensor:UserWarning")  # PyTorch's


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
    if name.startswith(
        "Parameter"
    ):  # whose print indents twice, and names dtypes as Torch once did
        theirs = theirs.replace("\n    ", "\n  ").replace("torch.FloatTensor", "float32")
        theirs = theirs.replace("torch.", "")
    same = lambda text: text.replace(", bias=True", "")  # older versions say less
    assert same(ours) == same(theirs)
