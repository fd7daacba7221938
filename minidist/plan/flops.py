"""Floating-point operations of training a GPT, the time they take, and what part of a peak that is.

A multiplication and an addition are two operations; of matrix products only; attention's matrices
in full, though half of them is masked. b is the rows of a batch.
"""

from __future__ import annotations

from typing import NamedTuple

from ..models.gpt import GPTConfig


class LayerFlops(NamedTuple):
    """FLOPs of one transformer layer and one micro-batch, in three parts."""

    forward: int
    input_gradient: int
    weight_gradient: int


def layer_flops(rows: int, tokens: int, hidden: int) -> LayerFlops:
    """sbh(24h + 4s), sbh(24h + 8s) and 24sbh² (Qi et al. 2023, arXiv 2401.10241, Table 1).

    Attention's two products have no weights: both of their gradients are gradients of inputs.
    """
    sbh = tokens * rows * hidden
    return LayerFlops(
        sbh * (24 * hidden + 4 * tokens), sbh * (24 * hidden + 8 * tokens), sbh * 24 * hidden
    )


def layer_costs(c: GPTConfig, tokens: int) -> list[float]:
    """FLOPs of each layer's forward, a row; the last one's with the head's: to balance stages by.

    Forward, gradient of inputs and gradient of weights cost alike but for attention.
    """
    costs = [float(layer_flops(1, tokens, c.hidden).forward)] * c.layers
    costs[-1] += 2 * tokens * c.hidden * c.vocab
    return costs


def megatron_parameters(c: GPTConfig) -> int:
    """12Lh²(1 + 13/12h + (V + s)/12Lh), which has no final norm's 2h.

    (Narayanan et al. 2021, arXiv 2104.04473, section 5.1.)
    """
    h = c.hidden
    return c.layers * (12 * h * h + 13 * h) + (c.vocab + c.positions) * h


def iteration_flops(c: GPTConfig, rows: int, recompute: bool = False) -> int:
    """FLOPs of one step with b rows of s tokens: 72BsLh²(1 + s/6h + V/12Lh).

    If every layer is recomputed, a fourth forward: 96BsLh²(1 + s/6h + V/16Lh). (Narayanan et al.
    2021, section 5.1; Korthikanti et al. 2022, arXiv 2205.05198, appendix A.)
    """
    passes = 4 if recompute else 3
    layers = passes * c.layers * layer_flops(rows, c.positions, c.hidden).forward
    return layers + 6 * rows * c.positions * c.hidden * c.vocab


def token_flops(c: GPTConfig) -> int:
    """FLOPs to train on one token, nothing recomputed: 6N + 12Lhs, N weights of matrix products."""
    weights = 12 * c.layers * c.hidden**2 + c.hidden * c.vocab
    return 6 * weights + 12 * c.layers * c.hidden * c.positions


def training_days(parameters: float, tokens: float, devices: int, flops: float) -> float:
    """8TP/(nX) in days: T tokens, P parameters, n devices of X FLOP/s each, all recomputed.

    (Narayanan et al. 2021, section 5.1.)
    """
    return 8 * tokens * parameters / (devices * flops) / 86_400


def utilization(flops: float, seconds: float, devices: int, peak: float) -> float:
    """The part of the devices' peak FLOP/s that `flops` in `seconds` are.

    With `iteration_flops` as they are it is MFU; with what was recomputed as well, HFU.
    """
    return flops / (seconds * devices * peak)
