"""Convolutions of one and two dimensions, and their transposes."""

from ..kernels import conv as kernel
from ..kernels.windows import check_channels, check_planes, windows
from ..kernels.windows import output_padding as extra_size
from .op import differentiable, want_one_dtype
from .shape import squeeze, unsqueeze


@differentiable(autocast="lower_precision_fp")
def _conv(x, weight, *bias, win, groups):
    y = kernel.forward(x, weight, bias[0] if bias else None, win, groups)
    return (
        y,
        lambda g: kernel.backward_input(g, weight, x.shape[2:], win, groups),
        lambda g: kernel.backward_weight(g, x, weight.shape, win, groups),
        kernel.backward_bias,
    )


@differentiable(autocast="lower_precision_fp")
def _conv_transpose(x, weight, *bias, win, groups, size):
    """A convolution's cotangent of its input, taken as a value: its VJPs are that convolution's."""
    y = kernel.backward_input(x, weight, size, win, groups)
    return (
        y + bias[0][:, None, None] if bias else y,
        lambda g: kernel.forward(g, weight, None, win, groups, x.shape[2:]),
        lambda g: kernel.backward_weight(x, g, weight.shape, win, groups),
        kernel.backward_bias,
    )


def on_planes(name, dims, x, function):
    """function on (n, c, h, w): a missing n is added and dropped again; in 1-d, h is 1."""
    check_planes(name, dims, x.shape)
    batch = x if x.ndim == dims + 2 else unsqueeze(x, 0)
    y = function(unsqueeze(batch, 2) if dims == 1 else batch)
    y = squeeze(y, 2) if dims == 1 else y
    return y if x.ndim == dims + 2 else squeeze(y, 0)


def _prepared(name, dims, x, weight, bias, groups, transposed):
    """The weight in two dimensions and the bias in a tuple, once all shapes are checked."""
    shape = None if bias is None else bias.shape
    check_channels(name, dims, x.shape, weight.shape, shape, groups, transposed)
    want_one_dtype(name, x, weight, bias)
    return unsqueeze(weight, 2) if dims == 1 else weight, () if bias is None else (bias,)


def _convolve(dims, x, weight, bias, stride, padding, dilation, groups):
    name = f"conv{dims}d"
    w, rest = _prepared(name, dims, x, weight, bias, groups, False)
    win = windows(name, dims, weight.shape[2:], stride, padding, dilation)
    return on_planes(name, dims, x, lambda x: _conv(x, w, *rest, win=win, groups=groups))


def conv1d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation: (n, c, l), weight (o, c/groups, k), bias (o,) -> (n, o, l')."""
    return _convolve(1, input, weight, bias, stride, padding, dilation, groups)


def conv2d(input, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """Cross-correlation: (n, c, h, w), weight (o, c/groups, kh, kw), bias (o,) -> (n, o, h', w').

    padding is a number, one an axis, 'valid' (none) or 'same' (stride 1; the odd one behind).
    """
    return _convolve(2, input, weight, bias, stride, padding, dilation, groups)


def conv_transpose2d(
    input, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1
):
    """The transpose of conv2d: (n, c, h, w), weight (c, o/groups, kh, kw) -> (n, o, h', w')."""
    name = "conv_transpose2d"
    w, rest = _prepared(name, 2, input, weight, bias, groups, True)
    win = windows(name, 2, weight.shape[2:], stride, padding, dilation)
    more = extra_size(name, 2, output_padding, win)

    def apply(x):
        size = win.spread(x.shape[2:], more)
        return _conv_transpose(x, w, *rest, win=win, groups=groups, size=size)

    return on_planes(name, 2, input, apply)
