"""Dropout: the mask comes from counter-based randomness, so no layout changes it."""

import warnings

from ..kernels import dropout as kernel
from ..tensor.random import stream
from .op import differentiable, want_floating


@differentiable(autocast="fallthrough", native_on_gpu=True)
def _dropout(x, *drawn):
    y, kept = kernel.forward(x, *drawn)
    return y, lambda g: kernel.backward(g, kept, *drawn)


def keep_mask(name, shape, keep):
    """F.dropout's mask as one array, True where it keeps: for dropout inside another operation."""
    return kernel.mask(shape, *stream(name, shape), keep)


def dropout(x, p=0.5, training=True, name="dropout"):
    """Zero each element with probability p and scale the rest by 1/(1-p) (Srivastava et al. 2014).

    Inside `random.at`, the mask of a sample is a function of (seed, step, name, global sample).
    """
    if not 0 <= p <= 1:
        raise ValueError(f"dropout: p = {p}: want 0 <= p <= 1")
    if not training or p == 0:
        return x
    want_floating("dropout", x)
    return _dropout(x, *stream(name, x.shape), 1 - p, 1 / (1 - p) if p < 1 else 0.0)


def dropout2d(input, p=0.5, training=True, name="dropout2d"):
    """Zero whole channels of (n, c, h, w) with probability p, scale the rest by 1/(1-p).

    Neighbouring pixels are similar, so dropping single pixels hides little (Tompson et al. 2015).
    The mask has one number for each channel of a sample; inside `random.at` it is drawn as
    dropout's.
    """
    if input.ndim < 2 or (training and not input.is_floating_point()):
        kind = f"{input.dtype.name} {input.shape}"
        raise RuntimeError(f"dropout2d of {kind}: want floating-point numbers (n, c, h, w)")
    if input.ndim != 4:
        text = f"dropout2d of {input.shape}: it is taken as (n, c, …), want (n, c, h, w)"
        warnings.warn(text, stacklevel=2)
    n, c = input.shape[:2]
    whole = input.new_ones(n, c, *(1,) * (input.ndim - 2))
    kept = dropout(whole, p, training, name)
    return input if kept is whole else input * kept
