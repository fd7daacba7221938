"""Softmax and its logarithm along a dimension: values and VJPs come from the kernel."""

from ..kernels import softmax as kernel
from ..tensor.dtypes import is_floating
from .op import axes_of, differentiable, with_axis


@differentiable(autocast="fp32", native_on_gpu=True)
def _softmax(x, axis):
    y = kernel.forward(x, axis)
    return y, lambda g: kernel.backward(g, y, axis)


@differentiable(autocast="fp32", native_on_gpu=True)
def _log_softmax(x, axis):
    y = kernel.log_forward(x, axis)
    return y, lambda g: kernel.log_backward(g, y, axis)


def _along(function, x, dim, dtype):
    x = x if dtype is None else x.to(dtype)
    if not is_floating(x.data):
        raise NotImplementedError(f"softmax of {x.dtype.name}: convert with .float() first")
    return function(x, axes_of((dim,), max(x.ndim, 1))[0])


@with_axis
def softmax(input, dim, dtype=None):
    """exp(x) / sum(exp(x)) along dim, with the maximum taken off first."""
    return _along(_softmax, input, dim, dtype)


@with_axis
def log_softmax(input, dim, dtype=None):
    """x - log(sum(exp(x))) along dim."""
    return _along(_log_softmax, input, dim, dtype)
