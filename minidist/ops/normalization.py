"""Layer norm: values and VJPs come from the kernel."""

import math

import numpy as np

from ..autograd import Joint
from ..kernels import layer_norm as kernel
from .op import differentiable, want_one_dtype


@differentiable
def _layer_norm(x, weight, bias, width, eps):
    shape, n = x.shape, x.size // max(width, 1)
    rows = np.ascontiguousarray(x).reshape(n, width)
    scale, shift = (None if a is None else a.reshape(-1) for a in (weight, bias))
    y, normal, rstd = kernel.forward(rows, scale, shift, eps)

    def vjp(g):
        dx, dw, db = kernel.backward(g.reshape(n, width), normal, scale, rstd)
        affine = ((dw, weight), (db, bias))
        return [dx.reshape(shape), *(None if a is None else d.reshape(a.shape) for d, a in affine)]

    return y.reshape(shape), Joint(vjp)


def layer_norm(x, normalized_shape, weight=None, bias=None, eps=1e-5):
    """(x - mean) / sqrt(var + eps) over the last dimensions, times weight, plus bias."""
    shape = (normalized_shape,) if isinstance(normalized_shape, int) else tuple(normalized_shape)
    if x.shape[x.ndim - len(shape) :] != shape:
        raise RuntimeError(f"layer_norm over {shape}: input {x.shape} does not end with it")
    for name, a in (("weight", weight), ("bias", bias)):
        if a is not None and a.shape != shape:
            raise RuntimeError(f"layer_norm over {shape}: its {name} has shape {a.shape}")
    want_one_dtype("layer_norm", x, weight, bias)
    return _layer_norm(x, weight, bias, math.prod(shape), eps)
