"""ZeRO: the bytes of parameters, gradients and optimiser states a rank holds, and what it sends.

Rajbhandari et al. 2020 (arXiv 1910.02054). psi is the number of parameters, n that of ranks. Stage
0 is plain data parallelism; 1 shards optimiser states, 2 gradients as well, 3 parameters as well.
"""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import NamedTuple

from ..comm.shards import shard_range


@dataclass(frozen=True)
class StateBytes:
    """Bytes that one parameter takes as a parameter, as a gradient, and in the optimiser (K)."""

    parameter: int
    gradient: int
    optimizer: int


MIXED = StateBytes(2, 2, 12)  # 16 bits, and Adam with a float32 copy, momentum and variance
FLOAT32 = StateBytes(4, 4, 8)

# Megatron Core's distributed optimiser, which is stage 1. Its fp16 gradients have a float32 copy.
MEGATRON = {
    "fp16, fp16 gradients": StateBytes(2, 2, 16),
    "bf16, fp32 gradients": StateBytes(2, 4, 12),
    "fp32, fp32 gradients": FLOAT32,
}


class Held(NamedTuple):
    """Bytes that one rank holds."""

    parameters: float
    gradients: float
    optimizer: float

    @property
    def total(self) -> float:
        return sum(self)


def is_sharded(stage: int) -> tuple[bool, bool, bool]:
    """Whether ranks share out parameters, gradients and optimiser states.

    >>> is_sharded(2)
    (False, True, True)
    """
    if stage not in range(4):
        raise ValueError(f"ZeRO stage {stage}: want 0, 1, 2 or 3")
    return stage >= 3, stage >= 2, stage >= 1


def zero_bytes(stage: int, psi: float, n: int, each: StateBytes = MIXED) -> Held:
    """Bytes of a rank where n divides psi: (4 + K)ψ, 4ψ + Kψ/n, 2ψ + (2 + K)ψ/n, (4 + K)ψ/n.

    (Fig. 1 and Table 1, for 16 bits and K = 12.)

    >>> zero_bytes(2, 7.5e9, 64).total / 1e9
    16.640625
    """
    return _held(stage, psi, psi / n, each)


def rank_bytes(stage: int, psi: int, n: int, rank: int, each: StateBytes = MIXED) -> Held:
    """The same exactly, for any psi and n: one flat buffer in shards by `shard_range`.

    Where several buffers are sharded one by one, each is a psi of its own; the sums are held.
    """
    start, stop = shard_range(psi, n, rank)
    return _held(stage, psi, stop - start, each)


def _held(stage: int, psi: float, shard: float, each: StateBytes) -> Held:
    sizes = zip(astuple(each), is_sharded(stage))
    return Held(*(size * (shard if sharded else psi) for size, sharded in sizes))


def zero_volume(stage: int, psi: float) -> float:
    """Elements a rank sends in a step as n grows, 2ψ or 3ψ (section 7); times (n - 1)/n exactly.

    2ψ is a reduce-scatter and an all-gather, together or apart; stage 3 gathers once more.
    """
    return (2 + is_sharded(stage)[0]) * psi


def zero_plus_plus_volume(
    psi: float, weight_bits: int = 8, gradient_bits: int = 4, bits: int = 16
) -> float:
    """Elements of `bits` bits that go between nodes in a step of ZeRO++, 0.75ψ in place of 3ψ.

    Parameters are gathered quantised for forward and inside the node for backward, gradients are
    exchanged quantised. (Wang et al. 2023, arXiv 2306.10209.)
    """
    forward, backward, gradients = weight_bits / bits, 0, gradient_bits / bits
    return (forward + backward + gradients) * psi


def deepspeed_zero2_bytes(psi: int, n: int, offload: bool = False) -> int:
    """Bytes on a GPU by DeepSpeed's estimator: 4ψ + 16ψ/n, or 2ψ with the optimiser on the CPU.

    Where the paper has 2ψ + 14ψ/n: gradients are float32 once, as the optimiser takes them.
    (DeepSpeed's documentation, "Memory Requirements".)
    """
    return 2 * psi if offload else 4 * psi + 16 * psi // n


def deepspeed_zero3_bytes(psi: int, largest: int, n: int, offload: str = "none") -> int:
    """Bytes on a GPU by DeepSpeed's estimator: 4 · the largest layer's parameters, and 18ψ/n.

    `offload` to the CPU is "none", "optimizer" (2ψ/n stay) or "all". (The same page.)
    """
    stays = {"none": 18, "optimizer": 2, "all": 0}[offload]
    return 4 * largest + stays * psi // n
