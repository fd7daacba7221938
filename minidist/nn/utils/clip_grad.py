"""Clipping gradients: by their global norm (Pascanu et al. 2013), or value by value."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from ...kernels import arrays as xp
from ...kernels.halves import BFLOAT16, is_half, wide
from ...kernels.vector_norm import vector_norm
from ...tensor.tensor import Tensor


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[xp.ndarray]:
    parameters = [parameters] if isinstance(parameters, Tensor) else parameters
    return [p.grad.data for p in parameters if p.grad is not None]


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:  # fmt: skip
    """g ← g · min(1, max_norm / (norm + 1e-6)), norm over all gradients at once; returns norm.

    norm_type is p > 0 of the p-norm, inf for the largest value. A norm that is not finite makes
    gradients 0 and nan, unless error_if_nonfinite refuses it.
    """
    p = float(norm_type)
    if not p > 0:
        raise ValueError(f"clip_grad_norm_: norm_type = {norm_type}: want p > 0, or inf")
    parameters = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = _gradients(parameters)
    norm = vector_norm(grads, p)
    if error_if_nonfinite and not math.isfinite(float(norm)):
        raise RuntimeError(
            f"clip_grad_norm_: the {norm_type}-norm of the gradients is {norm}: it cannot be "
            "clipped; look for what overflowed, or pass error_if_nonfinite=False"
        )
    clip_grads_with_norm_(parameters, max_norm, norm)
    dtypes = [wide(g.reshape(-1)[:0]).dtype for g in grads]
    return Tensor(norm, dtype=xp.result_type(*dtypes) if grads else None)


def clip_grads_with_norm_(
    parameters: Tensor | Iterable[Tensor], max_norm: float, total_norm: Any
) -> None:
    """g ← g · min(1, max_norm / (total_norm + 1e-6)), of a norm that is known already."""
    scale, norm = max_norm / (total_norm + 1e-6), total_norm
    if xp.on_gpu(norm):  # whether it is under 1 is known there alone
        scale = xp.where(scale >= 1, 1, scale)
    if xp.on_gpu(norm) or not scale >= 1:
        with xp.errstate(invalid="ignore"):  # inf · 0
            for g in _gradients(parameters):
                if is_half(g):
                    g[...] = wide(g) * scale
                else:
                    xp.multiply(g, scale, out=g)


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Every value of every gradient, into [-clip_value, clip_value]."""
    for g in _gradients(parameters):
        if g.dtype == BFLOAT16:
            g[...] = xp.clip(wide(g), -clip_value, clip_value)
        else:
            xp.clip(g, -clip_value, clip_value, out=g)
