"""Activations: the bytes a transformer layer keeps for backward, and what recomputing them costs.

Korthikanti et al. 2022 (arXiv 2205.05198): a GPT layer with dropout, 16 bits an element, 1 byte an
element of a mask. What is small beside b·s·h (statistics of the norms, biases) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

# What a layer keeps, as bytes in units of s·b·h and of a·s²·b (section 4.1).
KEPT_SBH = {
    "input of q, k, v": 2, "q and k": 4, "v": 2, "input of the projection": 2,
    "attention's dropout mask": 1, "input of the MLP": 2, "input of GELU": 8,
    "input of the MLP's second product": 8, "the MLP's dropout mask": 1, "inputs of two norms": 4,
}  # fmt: skip
KEPT_SSAB = {"softmax": 2, "softmax's dropout mask": 1, "softmax after dropout": 2}

SBH, SSAB = sum(KEPT_SBH.values()), sum(KEPT_SSAB.values())  # 34 and 5
# Under tensor parallelism alone each rank keeps these whole: two norms' inputs, the inputs of
# attention and of the MLP, two dropout masks.
WHOLE = 10


@dataclass(frozen=True)
class Layer:
    """a heads, s tokens a row, h hidden, b rows of a micro-batch, t tensor-parallel ranks."""

    heads: int
    tokens: int
    hidden: int
    rows: int = 1
    ranks: int = 1

    @property
    def sbh(self) -> int:
        return self.tokens * self.rows * self.hidden

    @property
    def core(self) -> float:
        """5as/h: what the attention matrices keep, in units of s·b·h bytes."""
        return SSAB * self.heads * self.tokens / self.hidden


def layer_bytes(x: Layer, scheme: str) -> float:
    """Bytes that one rank keeps of one layer and micro-batch (Table 2).

    `scheme`: "none" (neither shared nor recomputed), "tp", "tp+sp" (sequence parallel as well),
    "tp+selective" and "tp+sp+selective" (attention's core recomputed), "full" (only the input).

    >>> layer_bytes(Layer(heads=2, tokens=4, hidden=8), "none")  # 34·s·b·h + 5·a·s²·b
    1248.0
    """
    t, shared = x.ranks, SBH - WHOLE
    table = {
        "none": SBH + x.core,
        "tp": WHOLE + (shared + x.core) / t,
        "tp+sp": (SBH + x.core) / t,
        "tp+selective": WHOLE + shared / t,
        "tp+sp+selective": SBH / t,
        "full": 2,
    }
    return x.sbh * table[scheme]


def share(x: Layer, scheme: str) -> float:
    """What a scheme keeps as a part of what "tp" keeps: the paper's percentages."""
    return layer_bytes(x, scheme) / layer_bytes(x, "tp")


def interleaved_factor(p: int, v: int) -> float:
    """How much more the first of p stages keeps with v chunks a rank: 1 + (p - 1)/(pv)."""
    return 1 + (p - 1) / (p * v)


def first_stage_bytes(x: Layer, scheme: str, layers: int, p: int = 1, v: int = 1) -> float:
    """Bytes of all that the first of p stages keeps, of a model of so many layers.

    p micro-batches of layers/p layers each are in flight in 1F1B (v = 1): as much as one
    micro-batch of the whole model, whatever p is. Embedding and loss are left out. (Section 4.2.3.)
    """
    return layers * layer_bytes(x, scheme) * (interleaved_factor(p, v) if v > 1 else 1)


def selective_saving(x: Layer) -> float:
    """The part of a layer's activations that recomputing attention's core saves (section 5)."""
    return x.core / (SBH + x.core)


def selective_extra(x: Layer) -> float:
    """Its extra FLOPs by the paper: s/6h of 1 + s/6h, the vocabulary left out."""
    return _extra(x.tokens / (6 * x.hidden), x)


def selective_extra_counted(x: Layer) -> float:
    """Its extra FLOPs by count: attention's core once more, 4bs²h, which is s/18h of 72bsh².

    s/6h is all of that core's FLOPs, forward and backward; the paper's figure is 3 times this one.
    """
    return _extra(x.tokens / (18 * x.hidden), x)


def _extra(added: float, x: Layer) -> float:
    return added / (1 + x.tokens / (6 * x.hidden))


def megatron_layer_bytes(x: Layer, ffn: int) -> float:
    """s·b·h·(18 + 4·ffn/h)/t: Megatron-LM's own estimate, for "tp+sp+selective"; ffn inner units.

    (Megatron-LM, theoretical_memory_usage.py.)
    """
    return x.sbh * (18 + 4 * ffn / x.hidden) / x.ranks
