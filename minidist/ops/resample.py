"""Images and sequences of another size: the nearest element, or a line between neighbours."""

import math
import numbers

from ..kernels import resample as kernel
from ..kernels.half_precision import wide
from ..tensor.dtypes import float32, is_floating
from .op import differentiable

MODES = {"nearest": (1, 2, 3), "linear": (1,), "bilinear": (2,)}  # mode -> number of axes
FORMS = (
    "'nearest' for (n, c, l), (n, c, h, w) and (n, c, d, h, w), 'linear' for (n, c, l), "
    "'bilinear' for (n, c, h, w)"
)


@differentiable(autocast="fallthrough")
def _resample(x, *, taps):
    return kernel.forward(x, taps), lambda g: kernel.backward(g, taps)


def interpolate(
    input, size=None, scale_factor=None, mode="nearest", align_corners=None,
    recompute_scale_factor=None, antialias=False,
):  # fmt: skip
    """(n, c, …) of another size: (n, c, l) -> (n, c, l'), (n, c, h, w) -> (n, c, h', w').

    The new size is `size`, or scale_factor times the input's size, rounded down; each is one number
    or one for each axis. mode 'nearest' copies elements; 'linear' (one axis) and 'bilinear' (two)
    interpolate between neighbours. With align_corners the first and last elements keep their
    places, otherwise all elements are centres of equal parts. Places are computed from the given
    scale_factor, or with recompute_scale_factor from the ratio of the sizes.
    """
    if mode == "nearest" and align_corners is not None:
        raise ValueError("interpolate: align_corners with mode 'nearest': leave it out")
    sizes, scales = _sizes(input.shape[2:], size, scale_factor, recompute_scale_factor)
    dims = input.ndim - 2
    if mode not in MODES or dims not in MODES[mode] or antialias:
        given = f"mode {mode!r}{' with antialias=True' * bool(antialias)} for {input.shape}"
        raise NotImplementedError(f"interpolate: {given}: want {FORMS}")
    x, uint8 = input.data, mode == "nearest" and input.dtype.name == "uint8"
    if not is_floating(x) and not uint8:
        raise NotImplementedError(f"interpolate of {x.dtype.name}: convert with .float() first")
    if min(*input.shape[1:], *sizes) < 1:
        raise RuntimeError(f"interpolate: {input.shape} to {sizes}: want sizes of 1 or more")
    dtype = float32 if uint8 else wide(x[:0]).dtype
    each = zip(input.shape[2:], sizes, scales)
    if mode == "nearest":
        taps = (kernel.nearest(n, m, s, dtype, exact=dims == 2) for n, m, s in each)
    else:
        taps = (kernel.linear(n, m, s, dtype, bool(align_corners)) for n, m, s in each)
    return _resample(input, taps=tuple(taps))


def _sizes(shape, size, scale_factor, recompute):
    """The new sizes, and the scale of each axis (None if the sizes determine it)."""
    if (size is None) == (scale_factor is None):
        both = f"size {size}, scale_factor {scale_factor}"
        raise ValueError(f"interpolate: {both}: give one of the two")
    if size is None:
        scales = _each("scale_factor", scale_factor, shape, numbers.Real)
        sizes = tuple(math.trunc(n * s) for n, s in zip(shape, scales))
        return sizes, (None,) * len(sizes) if recompute else scales
    if recompute:
        raise ValueError("interpolate: recompute_scale_factor needs scale_factor, got size")
    sizes = _each("size", size, shape, numbers.Integral)
    return sizes, (None,) * len(sizes)


def _each(name, value, shape, kind):
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * len(shape)
    if len(values) != len(shape):
        raise ValueError(f"interpolate: {name} {value}: want a number, or one for each of {shape}")
    if not all(isinstance(v, kind) for v in values):
        want = "whole numbers" if name == "size" else "numbers"
        raise TypeError(f"interpolate: {name} {value}: want {want}")
    return values
