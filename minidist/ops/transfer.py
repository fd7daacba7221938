"""Tensors in another dtype or on another device, with the way back."""

from ..kernels import half_precision
from ..tensor.device import device_of, meant, moved
from ..tensor.dtypes import dtype_of
from .op import differentiable


@differentiable(autocast="fallthrough", moves_only=True)
def cast(x, dtype):
    """Another dtype; the cotangent is cast back."""
    before = x.dtype
    return half_precision.cast(x, dtype), lambda g: half_precision.as_dtype(g, before)


@differentiable(autocast="fallthrough", moves_only=True)
def placed(x, device):
    """A copy on another device; the cotangent is moved back."""
    home = device_of(x)
    return moved(x, device), lambda g: moved(g, home)


def to(input, *args, dtype=None, device=None):
    """In another dtype, on another device, or as a tensor is; input itself if it is so already."""
    wanted, where = meant(args, dtype, device)
    y = input if where is None or input.device.is_at(where) else placed(input, where)
    if wanted is None or wanted is y.dtype or y.dtype == dtype_of(wanted):
        return y
    return cast(y, dtype_of(wanted))
