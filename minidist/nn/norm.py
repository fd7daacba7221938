"""Normalisation layers: weight 1 and bias 0 at first."""

from __future__ import annotations

from typing import Any

from ..kernels import arrays as xp
from ..tensor.creation import ones, zeros
from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import functional as F
from . import init
from .module import Module, Parameter


class _Norm(Module):
    """What all norms share: weight and bias of one shape, each of which may be absent."""

    weight: Parameter | None
    bias: Parameter | None

    def _affine(self, shape: Any, weight: bool, bias: bool, dtype: DTypeLike) -> None:
        self.weight = Parameter(ones(shape, dtype=dtype)) if weight else None
        self.bias = Parameter(zeros(shape, dtype=dtype)) if weight and bias else None

    def reset_parameters(self) -> None:
        for p, value in ((self.weight, 1), (self.bias, 0)):
            if p is not None:
                init.constant_(p, value)


class LayerNorm(_Norm):
    """Layer norm over the last dimensions (Ba et al. 2016)."""

    shown: tuple[str, ...] = ("*normalized_shape", "eps", "elementwise_affine", "bias?")

    def __init__(
        self, normalized_shape: Any, eps: float = 1e-5, elementwise_affine: bool = True,
        bias: bool = True, *, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        shape = (normalized_shape,) if isinstance(normalized_shape, int) else normalized_shape
        self.normalized_shape, self.eps = tuple(shape), eps
        self.elementwise_affine = elementwise_affine
        self._affine(self.normalized_shape, elementwise_affine, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)


class RMSNorm(LayerNorm):
    """x / sqrt(mean(x²) + eps) over the last dimensions (Zhang & Sennrich 2019)."""

    eps: float | None  # type: ignore[assignment]
    shown = LayerNorm.shown[:-1]

    def __init__(
        self, normalized_shape: Any, eps: float | None = None, elementwise_affine: bool = True, *,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        super().__init__(normalized_shape, 0.0, elementwise_affine, False, dtype=dtype)
        self.eps = eps

    def forward(self, input: Tensor) -> Tensor:
        return F.rms_norm(input, self.normalized_shape, self.weight, self.eps)


class GroupNorm(_Norm):
    """Layer norm of groups of channels of (n, c, …) (Wu & He 2018); weight and bias (c,)."""

    shown = ("*num_groups", "*num_channels", "eps", "affine", "bias?")

    def __init__(
        self, num_groups: int, num_channels: int, eps: float = 1e-5, affine: bool = True, *,
        bias: bool = True, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        if num_channels % num_groups:
            raise ValueError(f"{num_groups} groups do not divide {num_channels} channels")
        self.num_groups, self.num_channels, self.eps = num_groups, num_channels, eps
        self.affine = affine
        self._affine(num_channels, affine, bias, dtype)

    def forward(self, input: Tensor) -> Tensor:
        return F.group_norm(input, self.num_groups, self.weight, self.bias, self.eps)


class _BatchNorm(_Norm):
    """Batch norm by channel (Ioffe & Szegedy 2015), with running statistics for eval.

    They move by `momentum` towards each batch's; with None they are the plain mean of all.
    """

    shown = ("*num_features", "eps", "momentum", "affine", "bias?", "track_running_stats")
    dims: tuple[int, ...]
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self, num_features: int, eps: float = 1e-5, momentum: float | None = 0.1,
        affine: bool = True, track_running_stats: bool = True, *, bias: bool = True,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.num_features, self.eps, self.momentum = num_features, eps, momentum
        self.affine, self.track_running_stats = affine, track_running_stats
        self._affine(num_features, affine, bias, dtype)
        tracked = track_running_stats
        self.register_buffer("running_mean", zeros(num_features, dtype=dtype) if tracked else None)
        self.register_buffer("running_var", ones(num_features, dtype=dtype) if tracked else None)
        count = Tensor(xp.zeros((), xp.int64)) if tracked else None
        self.register_buffer("num_batches_tracked", count)

    def forward(self, input: Tensor) -> Tensor:
        if input.ndim not in self.dims:
            want = " or ".join(map(str, self.dims))
            raise ValueError(f"{type(self).__name__}: input {input.shape}: want {want} dimensions")
        momentum, tracked = self.momentum, self.num_batches_tracked
        if self.training and tracked is not None:
            tracked.data += 1
            if momentum is None:
                momentum = 1 / (tracked.data if tracked.is_cuda else int(tracked))
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias,
            self.training or self.running_mean is None,
            0.0 if momentum is None else momentum, self.eps,
        )  # fmt: skip


class BatchNorm1d(_BatchNorm):
    """Batch norm of (n, c) or (n, c, l)."""

    dims = (2, 3)


class BatchNorm2d(_BatchNorm):
    """Batch norm of (n, c, h, w)."""

    dims = (4,)
