"""Pooling layers."""

from __future__ import annotations

from typing import Any

from ..tensor.tensor import Tensor
from . import functional as F
from .module import Module


class MaxPool2d(Module):
    """The largest of each window; stride is kernel_size if None."""

    shown = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
    function: Any = staticmethod(F.max_pool2d)

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1,
        return_indices: bool = False, ceil_mode: bool = False,
    ):  # fmt: skip
        if return_indices:
            raise ValueError("return_indices=True is not here: max pooling returns values alone")
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.dilation, self.ceil_mode = padding, dilation, ceil_mode

    def forward(self, input: Tensor) -> Tensor:
        how = self.stride, self.padding, self.dilation, self.ceil_mode
        return self.function(input, self.kernel_size, *how)


class MaxPool1d(MaxPool2d):
    """The largest of each window of (n, c, l)."""

    function = staticmethod(F.max_pool1d)


class AvgPool2d(Module):
    """The mean of each window; stride is kernel_size if None."""

    shown = ("kernel_size", "stride", "padding")

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True, divisor_override: int | None = None,
    ):  # fmt: skip
        self.kernel_size, self.stride = kernel_size, kernel_size if stride is None else stride
        self.padding, self.ceil_mode = padding, ceil_mode
        self.count_include_pad, self.divisor_override = count_include_pad, divisor_override

    def forward(self, input: Tensor) -> Tensor:
        how = self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool2d(input, self.kernel_size, *how, self.divisor_override)


class AvgPool1d(AvgPool2d):
    """The mean of each window of (n, c, l)."""

    def __init__(
        self, kernel_size: Any, stride: Any = None, padding: Any = 0, ceil_mode: bool = False,
        count_include_pad: bool = True,
    ):  # fmt: skip
        one = lambda size: (size,) if isinstance(size, int) else size
        stride = one(kernel_size if stride is None else stride)
        super().__init__(one(kernel_size), stride, one(padding), ceil_mode, count_include_pad)

    def forward(self, input: Tensor) -> Tensor:
        how = self.stride, self.padding, self.ceil_mode, self.count_include_pad
        return F.avg_pool1d(input, self.kernel_size, *how)


class AdaptiveAvgPool2d(Module):
    """Means over windows that cover the input evenly; None keeps a size."""

    shown = ("output_size",)
    function: Any = staticmethod(F.adaptive_avg_pool2d)

    def __init__(self, output_size: Any):
        self.output_size = output_size

    def forward(self, input: Tensor) -> Tensor:
        return self.function(input, self.output_size)


class AdaptiveAvgPool1d(AdaptiveAvgPool2d):
    """Means over windows that cover (n, c, l) evenly."""

    function = staticmethod(F.adaptive_avg_pool1d)
