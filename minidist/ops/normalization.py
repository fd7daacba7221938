"""Layer, RMS, group and batch norm: values and VJPs come from the kernels."""

import functools
import math

from ..amp.autocast import is_autocast_enabled
from ..autograd.tape import Joint
from ..kernels import arrays as xp
from ..kernels import batch_norm as batch
from ..kernels import group_norm as group
from ..kernels import layer_norm as kernel
from ..kernels import rms_norm as rms
from ..kernels.half_precision import is_half, wide
from ..tensor.device import want_one_place
from ..tensor.dtypes import float32
from ..tensor.tensor import Tensor
from .op import composite, differentiable, result_dtype, want_one_dtype, want_served


def _beside_float32(norm):
    """Allow float32 parameters and statistics with 16-bit inputs, as in PyTorch.

    The result has the input's dtype; under autocast it is still float32.
    """

    @functools.wraps(norm)
    def mixed(input, *args, **options):
        others = [t for t in (*args, *options.values()) if isinstance(t, Tensor)]
        beside = is_half(input.data) and any(t.dtype == float32 for t in others)
        if not beside or is_autocast_enabled():
            return norm(input, *args, **options)
        return norm(input.float(), *args, **options).to(input.dtype)

    return mixed


@differentiable(autocast="fp32", native_on_gpu=True)
def _layer_norm(x, weight, bias, width, eps):
    shape, n = x.shape, x.size // max(width, 1)
    rows = xp.ascontiguousarray(x).reshape(n, width)
    scale, shift = (None if a is None else a.reshape(-1) for a in (weight, bias))
    y, stats = kernel.forward(rows, scale, shift, eps)

    def vjp(g):
        dx, dw, db = kernel.backward(g, rows, scale, stats)
        affine = ((dw, weight), (db, bias))
        return [dx, *(None if a is None else d.reshape(a.shape) for d, a in affine)]

    return y.reshape(shape), Joint(vjp)


def _normalized(name, x, normalized_shape, **affine):
    """The number of elements that are normalised together, after all shapes are checked."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if not shape or x.shape[x.ndim - len(shape) :] != shape:
        raise RuntimeError(f"{name} over {shape}: input {x.shape} does not end with it")
    for key, a in affine.items():
        if a is not None and a.shape != shape:
            raise RuntimeError(f"{name} over {shape}: its {key} has shape {a.shape}")
    _want_floats(name, x, *affine.values())
    return math.prod(shape)


def _want_floats(name, x, *affine):
    """Refuse integers, and parameters of another dtype."""
    want_served(name, x.data)
    want_one_dtype(name, x, *affine)


@_beside_float32
def layer_norm(input, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over the last dimensions, times weight, plus bias."""
    width = _normalized("layer_norm", input, normalized_shape, weight=weight, bias=bias)
    return _layer_norm(input, weight, bias, width, eps)


@differentiable(autocast="fp32", native_on_gpu=True)
def _rms_norm(x, weight, width, eps):
    n, shape = x.size // max(width, 1), x.shape
    rows = xp.ascontiguousarray(x).reshape(n, width)
    scale = None if weight is None else weight.reshape(-1)
    y, rstd = rms.forward(rows, scale, eps)

    def vjp(g):
        dx, dw = rms.backward(g, rows, scale, rstd)
        return [dx, None if weight is None else dw.reshape(weight.shape)]

    return y.reshape(shape), Joint(vjp)


@_beside_float32
def rms_norm(input, normalized_shape, weight=None, eps=None):
    """x / sqrt(mean(x²) + eps) over the last dimensions, times weight; eps None: float32's."""
    width = _normalized("rms_norm", input, normalized_shape, weight=weight)
    eps = xp.finfo(wide(input.data[:0]).dtype).eps if eps is None else eps
    return _rms_norm(input, weight, width, eps)


def _channels(name, x, *affine):
    """(n, c, l) of an input (n, c, …), whose affine arrays must be (c,)."""
    if x.ndim < 2 or any(a is not None and a.shape != x.shape[1:2] for a in affine):
        shapes = ", ".join(str(None if a is None else a.shape) for a in affine)
        raise RuntimeError(f"{name}: input {x.shape}, with {shapes}: want (n, c, …), each (c,)")
    _want_floats(name, x, *affine)
    return *x.shape[:2], math.prod(x.shape[2:])


@differentiable(autocast="fp32", native_on_gpu=True)
def _group_norm(x, weight, bias, groups, eps, size):
    rows, shape = xp.ascontiguousarray(x).reshape(size), x.shape
    y, stats = group.forward(rows, weight, bias, groups, eps)

    def vjp(g):
        return group.backward(g, rows, weight, groups, stats)

    return y.reshape(shape), Joint(vjp)


@_beside_float32
def group_norm(input, num_groups, weight=None, bias=None, eps=1e-5):
    """Layer norm of each group of channels (Wu & He 2018), then weight and bias by channel."""
    n, c, length = _channels("group_norm", input, weight, bias)
    if c % num_groups:
        raise RuntimeError(f"group_norm: {num_groups} groups do not divide {c} channels")
    return _group_norm(input, weight, bias, num_groups, eps, (n, c, length))


@differentiable(autocast="fp32")
def _batch_norm(x, weight, bias, *, mean, var, eps, size, of_batch):
    rows, rstd = xp.ascontiguousarray(x).reshape(size), (1 / xp.sqrt(var + eps)).astype(x.dtype)
    shape, mean = x.shape, mean.astype(x.dtype)  # a copy: running statistics move

    def vjp(g):
        return batch.backward(g, rows, mean, rstd, weight, of_batch)

    return batch.forward(rows, mean, rstd, weight, bias).reshape(shape), Joint(vjp)


@_beside_float32
def batch_norm(
    input, running_mean, running_var, weight=None, bias=None, training=False, momentum=0.1,
    eps=1e-5,
):  # fmt: skip
    """(x - mean) / sqrt(var + eps) by channel: (n, c, …), over the batch while training.

    Then running_mean and running_var, if given, move by momentum towards the batch's mean and
    unbiased variance; otherwise they are what is taken off.
    """
    want_one_place("batch_norm", input, running_mean, running_var)
    size = _channels("batch_norm", input, weight, bias, running_mean, running_var)
    if not training:
        if running_mean is None or running_var is None:
            raise RuntimeError("batch_norm: without training it needs running_mean and running_var")
        mean, var = wide(running_mean.data), wide(running_var.data)
        how = {"mean": mean, "var": var, "eps": eps, "size": size, "of_batch": False}
        return _batch_norm(input, weight, bias, **how)
    count = size[0] * size[2]
    if count <= 1:
        raise ValueError(f"batch_norm: {count} values a channel in {input.shape}: want 2 or more")
    mean, var = batch.moments(wide(input.data).reshape(size))
    unbiased = var * (count / (count - 1))
    for running, new in ((running_mean, mean), (running_var, unbiased)):
        if running is not None:
            batch.follow(running.data, new, momentum)
    how = {"mean": mean, "var": var, "eps": eps, "size": size, "of_batch": True}
    return _batch_norm(input, weight, bias, **how)


def normalize(input, p=2.0, dim=1, eps=1e-12):
    """Each row along dim over its p-norm, or over eps if that is larger."""
    return input / input.norm(p, dim, True).clamp(min=eps)


@composite(autocast="fp32")
def cosine_similarity(x1, x2, dim=1, eps=1e-8):
    """The cosine of the angle between rows along dim; x1 and x2 are broadcast first."""
    try:
        shape = xp.broadcast_shapes(x1.shape, x2.shape)
    except ValueError:
        raise RuntimeError(
            f"cosine_similarity: shapes {x1.shape} and {x2.shape} do not broadcast"
        ) from None
    dtype = result_dtype((x1.data, x2.data))
    a, b = (normalize(x.to(dtype).expand(shape), 2, dim, eps) for x in (x1, x2))
    return (a * b).sum(dim)
