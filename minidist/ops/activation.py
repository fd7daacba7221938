"""Activations: each value beside its VJP."""

from ..kernels import arrays as xp
from ..kernels import pointwise as k
from ..kernels import swiglu as swiglu_kernel
from ..tensor.dtypes import is_floating
from .op import axes_of, differentiable, elementwise


@differentiable(autocast="fallthrough", native_on_gpu=True)
def relu(input):
    """max(x, 0)."""
    if input.dtype == bool:
        raise RuntimeError("relu of bool: convert with .long() first")
    if not is_floating(input):
        return (xp.maximum(input, 0),)
    return k.relu(input), lambda g: k.relu_slope(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def _sigmoid(x):
    y = k.sigmoid(x)
    return y, lambda g: k.sigmoid_slope(g, y)


def sigmoid(input):
    """1 / (1 + exp(-x))."""
    return _sigmoid(input if is_floating(input.data) else input.float())


@differentiable(autocast="fallthrough", native_on_gpu=True)
def logsigmoid(input):
    """log(sigmoid(x)), to the last digit far from 0 too."""
    return k.log_sigmoid(input), lambda g: k.log_sigmoid_slope(g, input)


@differentiable(autocast="fp32", native_on_gpu=True)
def softplus(input, beta=1.0, threshold=20.0):
    """log(1 + exp(beta·x)) / beta, and x itself where beta·x is above the threshold."""
    by = beta, threshold
    return k.softplus(input, *by), lambda g: k.softplus_slope(g, input, *by)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def silu(input):
    """x·sigmoid(x) (Elfwing et al. 2017)."""
    return k.silu(input), lambda g: k.silu_slope(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def swiglu(input):
    """silu(a)·b for the halves a and b of the last dimension (Shazeer 2020): (…, 2h) -> (…, h)."""
    if not is_floating(input) or input.ndim == 0 or input.shape[-1] % 2:
        raise RuntimeError(f"swiglu: {input.dtype.name} {input.shape}: want floats (..., 2h)")
    return swiglu_kernel.forward(input), lambda g: swiglu_kernel.backward(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def leaky_relu(input, negative_slope=0.01):
    """x where it is positive, negative_slope·x elsewhere."""
    by = negative_slope
    return k.leaky_relu(input, by), lambda g: k.leaky_relu_slope(g, input, by)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def elu(input, alpha=1.0):
    """x where it is positive, alpha·(exp(x) - 1) elsewhere (Clevert et al. 2015)."""
    return k.elu(input, alpha), lambda g: k.elu_slope(g, input, alpha)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def selu(input):
    """scale·elu(x, alpha), with constants that keep mean 0 and variance 1 through the layers.

    Klambauer et al. 2017.
    """
    return k.selu(input), lambda g: k.selu_slope(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def mish(input):
    """x·tanh(softplus(x)) (Misra 2019)."""
    return k.mish(input), lambda g: k.mish_slope(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def hardswish(input):
    """x·relu6(x + 3) / 6 (Howard et al. 2019)."""
    return k.hard_swish(input), lambda g: k.hard_swish_slope(g, input)


@differentiable(autocast="fallthrough", native_on_gpu=True)
def _hardtanh(x, low, high):
    if not is_floating(x):
        return (xp.minimum(xp.maximum(x, int(low)), int(high)),)
    by = low, high
    return k.hard_tanh(x, *by), lambda g: k.hard_tanh_slope(g, x, *by)


def hardtanh(input, min_val=-1.0, max_val=1.0):
    """x, limited to the range from min_val to max_val; at both limits the gradient is 0."""
    if min_val > max_val:
        raise ValueError(f"hardtanh: min_val {min_val} is above max_val {max_val}: swap them")
    kind = input.dtype.kind
    if kind == "b" or (kind == "u" and min_val < 0):
        name = input.dtype.name
        raise RuntimeError(f"hardtanh of {name} from {min_val}: convert with .float() or .int()")
    return _hardtanh(input, min_val, max_val)


def relu6(input):
    """min(max(x, 0), 6)."""
    return hardtanh(input, 0.0, 6.0)


@differentiable(autocast="fallthrough")
def _glu(x, axis):
    a, b = xp.split(x, 2, axis)
    s = k.sigmoid(b)
    return a * s, lambda g: xp.concatenate([g * s, g * a * s * (1 - s)], axis)


def glu(input, dim=-1):
    """a·sigmoid(b) for the halves a, b along dim (Dauphin et al. 2017): (…, 2h, …) -> (…, h, …)."""
    if not input.ndim:
        raise RuntimeError("glu of a 0-d tensor: want at least one dimension")
    axis = axes_of((dim,), input.ndim)[0]
    if input.shape[axis] % 2:
        raise RuntimeError(f"glu along {dim} of {input.shape}: want an even size")
    return _glu(input, axis)


@elementwise(autocast="lower_precision_fp")
def _prelu(x, weight):
    return (
        xp.where(x > 0, x, weight * x),
        lambda g: xp.where(x > 0, g, weight * g),
        lambda g: xp.where(x > 0, 0, g * x),
    )


def prelu(input, weight):
    """x where it is positive, weight·x elsewhere: one weight, or one for each of dimension 1."""
    channels = input.shape[1] if input.ndim > 1 else 1
    if weight.ndim > 1 or weight.numel() not in (1, channels):
        raise RuntimeError(f"prelu: weight {weight.shape} for input {input.shape}: one a channel")
    return _prelu(input, weight.reshape((-1,) + (1,) * (input.ndim - 2) if input.ndim else ()))
