"""Every operation on a GPU (its double): values and gradients of the CPU, and no hidden copy."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.catalogue import CASES, OURS, few, outputs
from support.double import copies, gpu
from support.tritons import using

import minidist as md
from minidist import Tensor

ASKS = {  # whose result's size, or way, is known only from numbers
    "masked_select": "how many there are", "getitem": "a mask as an index",
    "ctc_loss": "lengths steer its loops",
}  # fmt: skip


def on(device, name, arrays, options):
    """Outputs and gradients as arrays, and the copies to the host that making them took."""
    xs = [Tensor(np.array(a)).to(device) for a in arrays]
    for x in xs:
        x.requires_grad_(x.is_floating_point())
    options = {k: Tensor(v).to(device) if isinstance(v, np.ndarray) else v
               for k, v in options.items()}  # fmt: skip
    md.manual_seed(0)
    copies.clear()
    results = outputs(CASES[name].call(OURS, *xs, **options))
    tensors = [y for y in results if isinstance(y, Tensor)]
    assert all(y.device.type == device for y in tensors)
    wanted = [y for y in tensors if y.requires_grad]
    if wanted:
        md.autograd.backward(wanted, [md.ones_like(y) for y in wanted])
    asked = +copies
    gradients = [x.grad for x in xs if x.grad is not None]
    assert all(g.device.type == device for g in gradients)
    return [t.detach().cpu().data for t in (*tensors, *gradients)], asked


@pytest.mark.parametrize("name", CASES)
@given(data=st.data())
@few
def test_an_operation_there_is_the_same(name, data):
    arrays, options = data.draw(CASES[name].draw)
    here, _ = on("cpu", name, arrays, options)
    with gpu():
        there, asked = on("cuda", name, arrays, options)
    assert len(here) == len(there)
    for x, y in zip(here, there):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6 * max(1, np.abs(x).max(initial=0)))
    assert name in ASKS or not asked


@pytest.mark.parametrize("name", ["softmax", "layer_norm", "linear", "cross_entropy", "conv2d"])
@given(data=st.data())
@few
def test_the_naive_kernels_serve_there_too(name, data):
    arrays, options = data.draw(CASES[name].draw)
    here, _ = on("cpu", name, arrays, options)
    with gpu(), using("naive"):
        there, asked = on("cuda", name, arrays, options)
    for x, y in zip(here, there):
        np.testing.assert_allclose(y, x, rtol=1e-5, atol=1e-6 * max(1, np.abs(x).max(initial=0)))
    assert not asked


def test_a_copy_would_be_seen():
    with gpu() as count:
        x = md.ones(3).to("cuda")
        assert float(x.sum()) == 3 and +count == {"item": 1}
        assert x.tolist() == [1, 1, 1] and count["tolist"] == 1
        x[x > 0].sum()
        assert count["a mask as an index"] == 1


def test_tensors_in_two_places_are_refused():
    with gpu():
        x, y = md.ones(2, 3).to("cuda"), md.ones(3)
        with pytest.raises(RuntimeError, match=r"mul: argument 1 \(3,\) is on the CPU.*\.to\("):
            x * y
        assert (x * md.tensor(2.0)).device.type == "cuda", "one number may come from the CPU"
        with pytest.raises(RuntimeError, match="linear: argument 0"):
            md.nn.functional.linear(md.ones(2, 3), x)
