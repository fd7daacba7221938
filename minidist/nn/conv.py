"""Convolution layers.

Ready to be split: row o of a weight (out, in/groups, *kernel) makes output channel o alone, so a
rank may hold a range of rows and of biases; forward asks the weight for its sizes, nothing else.
"""

from __future__ import annotations

from typing import Any

from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import functional as F
from . import init
from .layers import empty
from .module import Module

MODES = "zeros", "reflect", "replicate", "circular"


def padded(layer: Any, input: Tensor) -> tuple[Tensor, Any]:
    """The input padded as padding_mode says, and the zero padding left for the convolution."""
    if layer.padding_mode == "zeros" or layer.padding == "valid":
        return input, layer.padding
    if layer.padding == "same":  # an odd element goes to the end
        totals = [d * (k - 1) for d, k in zip(layer.dilation, layer.kernel_size)]
        each = [(total // 2, total - total // 2) for total in totals]
    else:
        each = [(n, n) for n in layer.padding]
    return F.pad(input, [n for pair in reversed(each) for n in pair], layer.padding_mode), 0


class _Conv(Module):
    """What all convolutions share: weight and bias uniform in ±1/sqrt(fan_in) at first."""

    shown = ("*in_channels", "*out_channels", "kernel_size", "stride")
    dims, transposed = 2, False
    output_padding: Any = 0

    def _build(
        self, into: int, out: int, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
        groups: int, bias: bool, padding_mode: str, dtype: DTypeLike,
    ) -> None:  # fmt: skip
        if groups < 1 or into % groups or out % groups:
            raise ValueError(f"{groups} groups do not divide {into} and {out} channels")
        if padding_mode not in (MODES[:1] if self.transposed else MODES):
            want = "'zeros'" if self.transposed else ", ".join(MODES)
            raise ValueError(f"padding_mode {padding_mode!r}: want {want}")
        if padding not in ("same", "valid") and isinstance(padding, str):
            raise ValueError(f"padding {padding!r}: want numbers, 'same' or 'valid'")
        self.in_channels, self.out_channels, self.groups = into, out, groups
        self.padding_mode = padding_mode
        self.kernel_size, self.stride = self._each(kernel_size), self._each(stride)
        self.padding, self.dilation = self._each(padding), self._each(dilation)
        if padding == "same" and set(self.stride) != {1}:
            raise ValueError(f"padding 'same' with stride {stride}: want stride 1")
        first, second = (into, out) if self.transposed else (out, into)
        self.weight = empty(first, second // groups, *self.kernel_size, dtype=dtype)
        self.bias = empty(out, dtype=dtype) if bias else None
        self.reset_parameters()

    def _each(self, value: Any) -> Any:
        """One for each dimension; words stay."""
        return (value,) * self.dims if isinstance(value, int) else value

    def reset_parameters(self) -> None:
        init.default_(self.weight, self.bias)

    def extra_repr(self) -> str:
        usual = {"padding": 0, "dilation": 1, "output_padding": 0, "groups": 1}
        told = {k: getattr(self, k) for k in usual}
        changed = [f"{k}={v}" for k, v in told.items() if v not in (usual[k], self._each(usual[k]))]
        changed += ["bias=False"] * (self.bias is None)
        changed += [f"padding_mode={self.padding_mode}"] * (self.padding_mode != "zeros")
        return ", ".join([super().extra_repr(), *changed])


class Conv2d(_Conv):
    """Cross-correlation of (n, c, h, w): weight (out, in/groups, kh, kw), bias (out,).

    padding_mode: 'zeros', or one of the modes of F.pad: 'reflect', 'replicate', 'circular'.
    """

    function: Any = staticmethod(F.conv2d)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, dilation: Any = 1, groups: int = 1, bias: bool = True,
        padding_mode: str = "zeros", *, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        how = kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        self._build(in_channels, out_channels, *how)

    def forward(self, input: Tensor) -> Tensor:
        x, padding = padded(self, input)
        how = self.stride, padding, self.dilation, self.groups
        return self.function(x, self.weight, self.bias, *how)


class Conv1d(Conv2d):
    """Cross-correlation of (n, c, l): weight (out, in/groups, k), bias (out,)."""

    dims, function = 1, staticmethod(F.conv1d)


class ConvTranspose2d(_Conv):
    """The transpose of Conv2d: weight (in, out/groups, kh, kw), bias (out,)."""

    transposed, function = True, staticmethod(F.conv_transpose2d)

    def __init__(
        self, in_channels: int, out_channels: int, kernel_size: Any, stride: Any = 1,
        padding: Any = 0, output_padding: Any = 0, groups: int = 1, bias: bool = True,
        dilation: Any = 1, padding_mode: str = "zeros", *, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        how = kernel_size, stride, padding, dilation, groups, bias, padding_mode, dtype
        self._build(in_channels, out_channels, *how)
        self.output_padding = self._each(output_padding)

    def forward(self, input: Tensor) -> Tensor:
        how = self.stride, self.padding, self.output_padding, self.groups, self.dilation
        return self.function(input, self.weight, self.bias, *how)
