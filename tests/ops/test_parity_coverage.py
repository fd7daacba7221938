"""Every public operation beside PyTorch: values, gradients, dtypes, and the class of an error."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cases import numbers, shapes
from support.catalogue import EVERY, OURS, few, outputs
from support.parity import compare, to_torch, torch

from minidist import Tensor

THEIRS = SimpleNamespace(**vars(torch) | {"F": torch.nn.functional})


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")  # PyTorch's kl_div
@pytest.mark.parametrize("name", EVERY)
@given(data=st.data(), dtype=st.sampled_from(["float64", "float32"]))
@settings(few, max_examples=7)
def test_parity(name, data, dtype):
    case = EVERY[name]
    arrays, options = data.draw(case.draw)
    theirs = case.theirs or case.call
    count = len(outputs(case.call(OURS, *map(Tensor, arrays), **options)))
    assert count == len(outputs(theirs(THEIRS, *map(to_torch, arrays), **options)))
    for k in range(count):
        compare(
            lambda *x, k=k: outputs(case.call(OURS, *x, **options))[k],
            lambda *x, k=k: outputs(theirs(THEIRS, *x, **options))[k],
            arrays, dtype,
        )  # fmt: skip


def test_what_is_not_pytorchs_is_killed():
    """The controls: another value, another gradient, another dtype."""
    x = numbers((2, 3), 0)
    for wrong, words in (
        (lambda x: x * 1.000001, "value: off by"),
        (lambda x: x + (x - x.detach()), "gradient 0: off by"),
        (lambda x: x.float(), "value: float32, PyTorch's float64"),
        (lambda x: x[None], "shape"),
    ):
        with pytest.raises(AssertionError, match=words):
            compare(wrong, lambda x: x * 1, [x])


# Errors: another shape for one of the arguments

REASONS = {
    "swiglu packed_attention rotary_embedding": "PyTorch has no such function: composed there",
    "norm": "PyTorch wants two dimensions for a matrix norm, here there are none",
    "gather scatter scatter_add": "PyTorch lets an empty index have any shape",
    "cross_entropy nll_loss ctc_loss index_add index_select": "PyTorch has a class for each misfit",
    "batch_norm group_norm rms_norm scaled_dot_product_attention": "so it has if dimensions lack",
    "adaptive_avg_pool2d avg_pool2d": "PyTorch takes a plane without channels for one with them",
    "linear": "PyTorch broadcasts a bias of one number",
    "meshgrid diag": "their own words",
}
SHAPED = [n for n in EVERY if n not in " ".join(REASONS).split()]


def outcome(call, arrays, options):
    """The shapes that come out, or the class of the error."""
    try:
        with np.errstate(all="ignore"):
            return [tuple(t.shape) for t in outputs(call(*arrays, **options))]
    except Exception as error:
        return type(error)


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", SHAPED)
@given(data=st.data())
@settings(few, max_examples=5)
def test_what_does_not_fit_is_pytorchs_error(name, data):
    case = EVERY[name]
    arrays, options = data.draw(case.draw)
    k = data.draw(st.integers(0, len(arrays) - 1))
    shape = data.draw(shapes(min_dims=2, max_dims=4, min_side=1))
    arrays[k] = (
        np.resize(arrays[k], shape)
        if arrays[k].size
        else np.full(shape, 0.5).astype(arrays[k].dtype)
    )
    ours = outcome(case.call, [OURS, *map(Tensor, arrays)], options)
    theirs = outcome(case.theirs or case.call, [THEIRS, *map(to_torch, arrays)], options)
    assert ours == theirs, f"{[a.shape for a in arrays]} {options}"
