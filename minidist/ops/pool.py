"""Pooling over windows of one and two dimensions."""

from ..kernels import arrays as xp
from ..kernels import pool as kernel
from ..kernels.half_precision import wide
from ..kernels.windows import adaptive_sizes, pool_windows
from ..tensor.dtypes import float64, int64, is_floating
from .conv import on_planes
from .op import differentiable, want_floating


@differentiable(autocast="fallthrough")
def _max_pool(x, win, count):
    y, which = kernel.max_forward(x, win, count)
    return y, lambda g: kernel.max_backward(g, which, x.shape, win)


@differentiable(autocast="fallthrough")
def _mean_pool(x, *, matrices):
    down, across = (xp.at_home_of(x, m) for m in matrices)
    if x.dtype == int64:
        return (kernel.integer_mean(x, down, across),)
    return kernel.mean(x, down, across), lambda g: kernel.mean(g, down.T, across.T)


def _max(dims, x, kernel_size, stride, padding, dilation, ceil_mode):
    name = f"max_pool{dims}d"
    win = pool_windows(name, dims, kernel_size, stride, padding, dilation)
    return on_planes(name, dims, x, lambda x: _max_pool(x, win, win.grid(x.shape[2:], ceil_mode)))


def max_pool1d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest of each window: (n, c, l) -> (n, c, l'), as max_pool2d."""
    return _max(1, input, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool2d(input, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False):
    """The largest of each window: (n, c, h, w) -> (n, c, h', w'); stride is kernel_size if None.

    Padding counts as -inf; of equal values the first gets the gradient.
    """
    return _max(2, input, kernel_size, stride, padding, dilation, ceil_mode)


def _dtype(x):
    """The dtype of a matrix of means: not 16 bits, which would round 1/9 before it is used."""
    return wide(x.data[:0]).dtype if is_floating(x.data) else float64


def _mean(dims, x, kernel_size, stride, padding, ceil_mode, include_pad, divisor=None):
    name = f"avg_pool{dims}d"
    win = pool_windows(name, dims, kernel_size, stride, padding)
    if divisor == 0:
        raise RuntimeError(f"{name}: divisor_override 0")

    if not is_floating(x.data) and x.dtype != int64:
        raise NotImplementedError(f"{name} of {x.dtype.name}: convert with .float(), or .long()")

    def apply(x):
        win.grid(x.shape[2:], ceil_mode)  # there is one
        each = zip(x.shape[2:], (0, 1), (divisor, divisor and 1))
        rest = win, ceil_mode, include_pad
        matrices = [kernel.sliding(n, i, *rest, d, _dtype(x)) for n, i, d in each]
        return _mean_pool(x, matrices=matrices)

    return on_planes(name, dims, x, apply)


def avg_pool1d(input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True):
    """The mean of each window: (n, c, l) -> (n, c, l'), as avg_pool2d."""
    return _mean(1, input, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool2d(
    input, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True,
    divisor_override=None,
):  # fmt: skip
    """The mean of each window: (n, c, h, w) -> (n, c, h', w'); padding counts as 0 or not at all.

    Means of int64 are rounded towards 0.
    """
    divisor = divisor_override
    return _mean(2, input, kernel_size, stride, padding, ceil_mode, count_include_pad, divisor)


def _adaptive(dims, x, output_size):
    name = f"adaptive_avg_pool{dims}d"
    wanted = adaptive_sizes(name, dims, output_size)
    want_floating(name, x)

    def apply(x):
        matrices = [kernel.adaptive(n, m, _dtype(x)) for n, m in zip(x.shape[2:], wanted)]
        return _mean_pool(x, matrices=matrices)

    return on_planes(name, dims, x, apply)


def adaptive_avg_pool1d(input, output_size):
    """Means over output_size windows that cover the input evenly: (n, c, l) -> (n, c, l')."""
    return _adaptive(1, input, output_size)


def adaptive_avg_pool2d(input, output_size):
    """Means over windows that cover rows and columns evenly; None keeps a size."""
    return _adaptive(2, input, output_size)
