"""Tensor-parallel convolutions: each rank has some output channels, or some input channels.

They come in pairs, like the linear layers. ColumnParallelConv2d computes this rank's channels.
Layers that treat each channel alone follow (an activation, pooling). RowParallelConv2d adds up the
ranks' partial sums. A pair costs one all-reduce in forward and one in backward.

Shapes: n images, c input and o output channels, h · w pixels, t ranks.
"""

from __future__ import annotations

from typing import Any

from ...comm import Communicator
from ...comm.comm_self import CommSelf
from ...nn import Conv2d, Parameter
from ...nn import functional as F
from ...nn.conv import padded
from ...ops import communication
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import ParallelLayer, shard_indices, shard_parameter


class _ParallelConv2d(ParallelLayer):
    """A shard of nn.Conv2d's weight along `dim`, with nn.Conv2d's initial weights.

    in_channels and out_channels count the channels of all ranks.
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
        full = Conv2d(in_channels, out_channels, kernel_size, *how, dtype=dtype)
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.stride = full.kernel_size, full.stride
        self.padding, self.dilation = full.padding, full.dilation
        self.padding_mode = full.padding_mode
        self.index = shard_indices(full.weight.shape[self.dim], self.comm)
        self.weight: Parameter = shard_parameter(
            self, "weight", full.weight, self.dim, self.index, self.comm
        )
        self.bias: Tensor | None = full.bias

    def _convolve(self, x: Tensor, bias: Tensor | None) -> Tensor:
        x, padding = padded(self, x)
        return F.conv2d(x, self.weight, bias, self.stride, padding, self.dilation)


class ColumnParallelConv2d(_ParallelConv2d):
    """This rank's output channels of nn.Conv2d: (n, c, h, w) -> (n, o/t, h', w').

    The input is replicated; backward adds up its partial gradients over the ranks.
    """

    dim = 0

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.bias = shard_parameter(self, "bias", self.bias, 0, self.index, self.comm)

    def forward(self, input: Tensor) -> Tensor:
        alone = self.comm.size == 1
        return self._convolve(input if alone else communication.copy(input, self.comm), self.bias)


class RowParallelConv2d(_ParallelConv2d):
    """nn.Conv2d of whose input channels this rank has a shard: (n, c/t, h, w) -> (n, o, h', w').

    A ColumnParallelConv2d computes these channels. The bias is replicated, and added once: after
    the sum.
    """

    dim = 1

    def forward(self, input: Tensor) -> Tensor:
        self._check(input.shape)
        if self.comm.size == 1:  # the bias within the convolution
            return self._convolve(input, self.bias)
        partial = self._convolve(input, None)  # (n, o, h', w'), a sum over this rank's c/t channels
        y = communication.reduce(partial, self.comm)
        # in y's dtype (16 bits under autocast), as one process does
        return y if self.bias is None else y + self.bias.to(y.dtype).reshape(-1, 1, 1)

    def _check(self, shape: tuple[int, ...]) -> None:
        if len(shape) > 2 and shape[-3] != len(self.index):
            raise ValueError(
                f"RowParallelConv2d: input {shape} has {shape[-3]} channels: want this rank's "
                f"{len(self.index)} of {self.in_channels}, as a ColumnParallelConv2d leaves them"
            )
