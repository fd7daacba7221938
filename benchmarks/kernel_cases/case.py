"""A case: one kernel of ours and PyTorch's, on the same numbers."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from measure import RNG

N, V, H = 1024, 4096, 256


class Case(NamedTuple):
    """One row of the table; both runs return the same arrays."""

    size: str
    ours: Callable
    theirs: Callable
    flops: float = 0
    moved: float = 0
    same: bool = True  # whether the results can be compared


def numbers(*shape):
    return RNG.standard_normal(shape).astype("float32")


def pytorch(function, g, *inputs):
    """A run that returns function(*inputs) and the inputs' gradients under the cotangent g."""
    leaves = [torch.tensor(x, requires_grad=True) for x in inputs]
    g = torch.tensor(g)

    def run():
        y = function(*leaves)
        return y.detach(), *torch.autograd.grad(y, leaves, g)

    return run
