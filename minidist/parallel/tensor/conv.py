"""Tensor-parallel convolutions: each rank has some output channels, or some input channels.

As with linear layers, columns, then rows: what ColumnParallelConv2d makes are this rank's channels,
what works on each channel alone (an activation, pooling) follows, and RowParallelConv2d sums the
ranks' parts into the whole. Forward costs one all-reduce a pair, backward another.
"""

from __future__ import annotations

from typing import Any

from ...comm import Communicator
from ...comm.comm_self import CommSelf
from ...nn import Conv2d, Module, Parameter
from ...nn import functional as F
from ...ops import communication
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import Part, shares


class _ParallelConv2d(Module):
    """A part of nn.Conv2d's weight along `dim`, as its first values: the whole is drawn, then cut.

    Channels that in_channels and out_channels count are the whole's.
    """

    dim: int
    shown = ("*in_channels", "*out_channels", "kernel_size", "stride", "padding", "bias?")

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", *, comm: Communicator | None = None,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        if groups != 1:
            raise ValueError(
                f"{type(self).__name__}: groups = {groups}: want 1. Groups are convolutions beside "
                "each other that share no channels: give each rank an nn.Conv2d of some of them"
            )
        self.comm = comm or CommSelf()
        how = stride, padding, dilation, groups, bias, padding_mode
        whole = Conv2d(in_channels, out_channels, kernel_size, *how, dtype=dtype)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = whole.kernel_size, whole.stride
        self.padding, self.dilation = whole.padding, whole.dilation
        shape: tuple[int, ...] = whole.weight.shape
        self.index = shares(shape[self.dim], self.comm)
        self.parts = {"weight": Part(shape, self.dim, self.index, self.comm)}
        self.weight = self._mine("weight", whole.weight)
        self.bias: Tensor | None = whole.bias

    def _mine(self, name: str, whole: Tensor) -> Parameter:
        return Parameter(Tensor.of(self.parts[name].of(whole.data)))

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        return F.conv2d(x, self.weight, bias, self.stride, self.padding, self.dilation)


class ColumnParallelConv2d(_ParallelConv2d):
    """This rank's output channels of nn.Conv2d.

    The input (n, c, h, w) is whole on every rank; backward sums its gradient over them.
    """

    dim = 0

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if self.bias is not None:
            self.parts["bias"] = Part((self.out_channels,), 0, self.index, self.comm)
            self.bias = self._mine("bias", self.bias)

    def forward(self, input: Tensor) -> Tensor:
        alone = self.comm.size == 1
        return self._convolve(input if alone else communication.copy(input, self.comm), self.bias)


class RowParallelConv2d(_ParallelConv2d):
    """nn.Conv2d of which this rank has its input channels: those a ColumnParallelConv2d leaves.

    The bias is whole on every rank, and added once: after the sum.
    """

    dim = 1

    def forward(self, input: Tensor) -> Tensor:
        self._check(input.shape)
        if self.comm.size == 1:  # the bias within the convolution
            return self._convolve(input, self.bias)
        y = communication.reduce(self._convolve(input, None), self.comm)
        return y if self.bias is None else y + self.bias.reshape(-1, 1, 1)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) > 2 and shape[-3] != len(self.index):
            raise ValueError(
                f"RowParallelConv2d: input {shape} has {shape[-3]} channels: want this rank's "
                f"{len(self.index)} of {self.in_channels}, as a ColumnParallelConv2d leaves them"
            )
