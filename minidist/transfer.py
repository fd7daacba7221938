"""A tensor on another device, with the way back."""

from .device import device_of, moved
from .ops.op import differentiable


@differentiable
def placed(x, device):
    """A copy there; the cotangent is moved back."""
    home = device_of(x)
    return moved(x, device), lambda g: moved(g, home)
