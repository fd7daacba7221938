"""Formulas of our GPT: its parameters, and the bytes that a forward pass keeps for backward.

Both are exact. The bytes are those of one rank in any layout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..models.gpt import GPTConfig, Shares


def gpt_parameters(c: GPTConfig) -> int:
    """(V + s)h + L(12h² + 13h) + 2h (Narayanan et al. 2021, 5.1, with the final norm exact).

    A layer: QKV 3h² + 3h, projection h² + h, MLP 8h² + 5h, two norms 4h.
    """
    h = c.hidden
    return (c.vocab + c.positions) * h + c.layers * (12 * h * h + 13 * h) + 2 * h


def activation_bytes(
    c: GPTConfig, b: int, s: int, e: int, has: Shares, part: Sequence[int] | None = None
) -> int:
    """Bytes kept for b rows of s tokens, at e bytes a number (`has`: this rank's part).

    For e = 2 and a whole layer this is 32·s·b·h and 2·a·s·b, a number for each query of a head.

    Norms keep their input and two numbers a row; linear layers what they multiply, but for the
    projection after attention, whose input attention keeps; GELU its slope. Under sequence
    parallelism a column layer keeps this rank's tokens only, and a dropped mask is of numbers.
    `part`: the layers of a pipeline's stage, with the embedding at the first and the loss at the
    last; by default all.
    """
    part = range(c.layers) if part is None else part
    first, last = part[0] == 0, part[-1] == c.layers - 1
    layers, wide = len(part), has.heads * (c.hidden // c.heads)
    rows, mine = b * s, b * has.tokens
    norms = (2 * layers + last) * mine * (c.hidden + 2)
    products = layers * (2 * mine * c.hidden + rows * has.units) + last * mine * c.hidden
    attention = layers * (4 * rows * wide + has.heads * rows)
    gelu = layers * rows * has.units
    numbers = norms + products + attention + gelu
    masks = (2 * layers + first) * _mask(mine * c.hidden, e, has) if c.dropout else 0
    return e * numbers + masks + first * _embedding(rows, has) + last * _loss(rows, e, has)


def _mask(numbers: int, e: int, has: Shares) -> int:
    return numbers * e if has.sequence_parallel else math.ceil(numbers / 8)


def _embedding(rows: int, has: Shares) -> int:
    """Token numbers of 8 bytes; a part of the vocabulary also keeps which tokens lie in it."""
    return 8 * rows if has.ways == 1 and not has.sequence_parallel else (8 + 1) * rows


def _loss(rows: int, e: int, has: Shares) -> int:
    """Logits, two numbers a row, and targets; a part of the vocabulary also which rows count."""
    return e * rows * (has.words + 2) + (8 if has.ways == 1 else 8 + 1) * rows
