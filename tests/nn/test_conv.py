"""Convolution and pooling: gradients, PyTorch's numbers on random shapes, PyTorch's errors."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from support.cases import SEEDS, distinct, laid_out, numbers

import minidist as md
from minidist import nn
from minidist.nn import functional as F
from minidist.testing import gradcheck

ONE_OR_TWO = st.one_of(st.integers(1, 2), st.tuples(st.integers(1, 3), st.integers(1, 3)))


@st.composite
def problems(draw, transposed: bool = False):
    """dims, arrays x, weight, bias, and the options that PyTorch takes too."""
    dims = 2 if transposed else draw(st.integers(1, 2))
    groups = draw(st.integers(1, 2))
    each = st.integers(1, 2) if dims == 1 else ONE_OR_TWO
    options = {"stride": draw(each), "dilation": draw(each), "groups": groups}
    options["padding"] = draw(st.integers(0, 2))
    if transposed:
        fill = [v if isinstance(v, tuple) else (v,) * dims for v in
                (options["stride"], options["dilation"])]  # fmt: skip
        options["output_padding"] = tuple(
            draw(st.integers(0, max(pair) - 1)) for pair in zip(*fill)
        )
    elif draw(st.booleans()):
        options |= {"padding": draw(st.sampled_from(["same", "valid"])), "stride": 1}
    kernel = [draw(st.integers(1, 3)) for _ in range(dims)]
    size = [draw(st.integers(1, 5)) for _ in range(dims)]
    c, o = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 2))
    lead = draw(st.sampled_from([(), (1,), (2,)]))
    first, second = (c, o) if transposed else (o, c)
    seed = draw(SEEDS)
    x = numbers((*lead, c, *size), seed)
    weight = numbers((first, second // groups, *kernel), seed + 1)
    return dims, [x, weight, numbers((o,), seed + 2)], options


@given(problem=problems())
@settings(max_examples=25)
def test_gradients_of_convolution(problem):
    dims, arrays, options = problem
    conv = F.conv1d if dims == 1 else F.conv2d
    try:
        conv(*map(md.Tensor, arrays), **options)
    except RuntimeError:
        assume(False)  # the kernel does not fit
    gradcheck(lambda *a: conv(*a, **options), [laid_out(arrays[0], "F"), *arrays[1:]])


@given(problem=problems(transposed=True))
@settings(max_examples=25)
def test_gradients_of_transposed_convolution(problem):
    _, arrays, options = problem
    try:
        F.conv_transpose2d(*map(md.Tensor, arrays), **options)
    except RuntimeError:
        assume(False)  # padded to nothing
    gradcheck(lambda *a: F.conv_transpose2d(*a, **options), arrays)


@given(x=st.sampled_from([(2, 5, 4), (1, 2, 4, 5)]).flatmap(distinct), k=st.integers(1, 3),
       stride=st.sampled_from([None, 1, 2]), pad=st.integers(0, 1), ceil=st.booleans())  # fmt: skip
@settings(max_examples=25)
def test_gradients_of_pooling(x, k, stride, pad, ceil):
    pad = min(pad, k // 2)
    gradcheck(lambda x: F.max_pool2d(x, k, stride, pad, ceil_mode=ceil), [x])
    gradcheck(lambda x: F.avg_pool2d(x, k, stride, pad, ceil, count_include_pad=False), [x])
    gradcheck(lambda x: F.adaptive_avg_pool2d(x, (k, None)), [x])


def test_a_convolution_of_everything_is_a_linear_layer():
    x, w = numbers((3, 2, 4, 5), 0), numbers((6, 2, 4, 5), 1)
    y = F.conv2d(md.Tensor(x), md.Tensor(w))
    np.testing.assert_allclose(y.data[:, :, 0, 0], x.reshape(3, -1) @ w.reshape(6, -1).T)


def test_channels_can_be_split():
    """Rows of the weight make output channels: two halves side by side are the whole."""
    md.manual_seed(0)
    x, whole = md.Tensor(numbers((2, 3, 5, 5), 0)), nn.Conv2d(3, 4, 3, padding=1).double()
    parts = [nn.Conv2d(3, 2, 3, padding=1).double() for _ in range(2)]
    for i, part in enumerate(parts):
        for p, q in zip(part.parameters(), whole.parameters()):
            p.data[...] = q.data[2 * i : 2 * i + 2]
    y = np.concatenate([part(x).data for part in parts], 1)
    np.testing.assert_allclose(y, whole(x).data, rtol=1e-13)


def test_inputs_that_cannot_be():
    for module, x, words in (
        (nn.Conv2d(3, 2, 3), (1, 2, 5, 5), r"weight \(2, 3, 3, 3\), 1 groups.*3 input channels"),
        (nn.Conv2d(3, 2, 3), (3, 5), "want 3 dimensions"),
        (nn.Conv2d(3, 2, 7), (3, 5, 5), r"window of \(7, 7\).*does not fit \(5, 5\)"),
        (nn.ConvTranspose2d(3, 2, 1, padding=2), (3, 4, 4), "pad less"),
        (nn.MaxPool2d(2, padding=2), (1, 4, 4), "at most half"),
        (nn.AdaptiveAvgPool2d((1, 2, 3)), (1, 4, 4), "want 2"),
    ):
        with pytest.raises(RuntimeError, match=words):
            module(md.ones(*x))
    for make, words in (
        (lambda: nn.Conv2d(3, 2, 3, groups=2), "2 groups do not divide 3 and 2"),
        (lambda: nn.Conv2d(3, 2, 3, stride=2, padding="same"), "want stride 1"),
        (lambda: nn.Conv2d(3, 2, 3, padding_mode="mirror"), "'mirror': want zeros, reflect"),
        (lambda: nn.ConvTranspose2d(3, 2, 3, padding_mode="reflect"), "'reflect': want 'zeros'"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "return_indices"),
    ):
        with pytest.raises(ValueError, match=words):
            make()


@pytest.mark.filterwarnings("ignore:Using padding='same':UserWarning")
class TestBesidePyTorch:
    """PyTorch's values and gradients, and its classes of error."""

    @given(data=st.data(), transposed=st.booleans())
    @settings(max_examples=60)
    def test_convolutions(self, data, transposed):
        from support.parity import compare, torch

        dims, arrays, options = data.draw(problems(transposed))
        name = f"conv{'_transpose' * transposed}{dims}d"
        theirs = getattr(torch.nn.functional, name)
        try:
            theirs(*map(torch.from_numpy, arrays), **options)
        except RuntimeError:
            with pytest.raises(RuntimeError):
                getattr(F, name)(*map(md.Tensor, arrays), **options)
            return
        compare(
            lambda *a: getattr(F, name)(*a, **options), lambda *a: theirs(*a, **options), arrays
        )

    @pytest.mark.parametrize("ceil", [False, True])
    @given(k=st.integers(1, 3), stride=st.sampled_from([None, 1, 2, 3]), pad=st.integers(0, 1),
           size=st.tuples(st.integers(3, 7), st.integers(3, 7)), dilation=st.integers(1, 2),
           include=st.booleans(), divisor=st.sampled_from([None, 3]), seed=SEEDS)  # fmt: skip
    @settings(max_examples=25)
    def test_pooling(self, ceil, k, stride, pad, size, dilation, include, divisor, seed):
        from support.parity import compare

        x, pad = np.maximum(numbers((2, 3, *size), seed), 0), min(pad, k // 2)  # many ties at 0
        tied = {"stride": stride, "padding": pad, "ceil_mode": ceil}
        assume(min(size) + 2 * pad > dilation * (k - 1))
        for name, options in {
            "max_pool2d": tied | {"dilation": dilation},
            "avg_pool2d": tied | {"count_include_pad": include, "divisor_override": divisor},
            "max_pool1d": tied | {"dilation": dilation},
            "avg_pool1d": tied | {"count_include_pad": include},
        }.items():
            ours, theirs = pair(name)
            compare(
                lambda x, f=ours, o=options: f(x, k, **o),
                lambda x, f=theirs, o=options: f(x, k, **o),
                [x if "2d" in name else x[:, 0]],
            )

    @pytest.mark.parametrize("output", [1, 3, 7, (2, None), (None, 5)])
    def test_adaptive_pooling(self, output):
        from support.parity import compare

        ours, theirs = pair("adaptive_avg_pool2d")
        x = numbers((2, 3, 5, 7), 0)
        compare(lambda x: ours(x, output), lambda x: theirs(x, output), [x])
        if isinstance(output, int):
            ours, theirs = pair("adaptive_avg_pool1d")
            compare(lambda x: ours(x, output), lambda x: theirs(x, output), [x[0]])

    WRONG = {
        "channels": lambda f, m: f.conv2d(m.ones(2, 3, 4, 4), m.ones(2, 2, 3, 3)),
        "too large": lambda f, m: f.conv2d(m.ones(2, 3, 4, 4), m.ones(2, 3, 5, 5)),
        "dimensions": lambda f, m: f.conv2d(m.ones(3, 4), m.ones(2, 3, 3, 3)),
        "stride": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3), stride=0),
        "same": lambda f, m: f.conv2d(
            m.ones(3, 4, 4), m.ones(2, 3, 3, 3), padding="same", stride=2),
        "a word": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3), padding="x"),
        "bias": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3), m.ones(3)),
        "dtypes": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3, dtype=m.float64)),
        "negative": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3), padding=-1),
        "groups": lambda f, m: f.conv2d(m.ones(4, 4, 4), m.ones(3, 2, 3, 3), groups=2),
        "no groups": lambda f, m: f.conv2d(m.ones(4, 4, 4), m.ones(4, 2, 3, 3), groups=0),
        "three": lambda f, m: f.conv2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3), padding=(1, 1, 1)),
        "output": lambda f, m: f.conv_transpose2d(
            m.ones(3, 4, 4), m.ones(3, 2, 3, 3), output_padding=1),
        "transposed": lambda f, m: f.conv_transpose2d(m.ones(3, 4, 4), m.ones(2, 3, 3, 3)),
        "window": lambda f, m: f.max_pool2d(m.ones(3, 4, 4), 5),
        "half": lambda f, m: f.max_pool2d(m.ones(3, 4, 4), 2, padding=2),
        "no window": lambda f, m: f.max_pool2d(m.ones(3, 4, 4), 0),
        "planes": lambda f, m: f.max_pool2d(m.ones(4, 4), 2),
        "divisor": lambda f, m: f.avg_pool2d(m.ones(3, 4, 4), 2, divisor_override=0),
        "sizes": lambda f, m: f.adaptive_avg_pool2d(m.ones(1, 3, 4, 4), (1, 2, 3)),
        "a size": lambda f, m: f.adaptive_avg_pool2d(m.ones(3, 4, 4), -1),
    }  # fmt: skip

    @pytest.mark.parametrize("name", WRONG)
    def test_errors(self, name):
        from support.parity import error_of, torch

        theirs = error_of(lambda: self.WRONG[name](torch.nn.functional, torch))
        assert error_of(lambda: self.WRONG[name](F, md)) is theirs is not None


def pair(name):
    from support.parity import torch

    return getattr(F, name), getattr(torch.nn.functional, name)


@pytest.mark.parametrize("mode", ["reflect", "replicate", "circular"])
def test_convolutions_of_padded_edges_are_pytorchs(mode):
    parity = pytest.importorskip("support.parity", reason="PyTorch is not installed")
    for name, shape, how in (
        ("Conv2d", (2, 4, 6, 7), {"kernel_size": (3, 2), "padding": (2, 1), "stride": 2}),
        ("Conv2d", (4, 6, 7), {"kernel_size": (3, 2), "padding": "same", "dilation": (1, 3)}),
        ("Conv1d", (2, 4, 8), {"kernel_size": 3, "padding": 2, "groups": 2}),
        ("Conv1d", (4, 8), {"kernel_size": 4, "padding": "same"}),
        ("Conv1d", (2, 4, 8), {"kernel_size": 3, "padding": "valid"}),
    ):
        ours, theirs = (getattr(m, name)(4, 6, **how, padding_mode=mode).double()
                        for m in (nn, parity.torch.nn))  # fmt: skip
        ours.load_state_dict(theirs.state_dict())
        parity.compare(ours, theirs, [numbers(shape, 0)])
        np.testing.assert_allclose(ours.weight.grad.data, theirs.weight.grad.numpy(), rtol=1e-11)
        assert repr(ours) == repr(theirs)
