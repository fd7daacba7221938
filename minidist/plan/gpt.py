"""What a forward pass of our GPT keeps for backward, exactly, on a rank of any layout."""

from __future__ import annotations

import math

from ..kernels.attention import KEPT
from ..models.gpt import GPTConfig, Shares


def activation_bytes(c: GPTConfig, b: int, s: int, e: int, has: Shares) -> int:
    """b rows of s tokens, e bytes a number; a layer's share is 32·s·b·h and its core at e = 2.

    Norms keep their input and four numbers a row; linear layers what they multiply, but for the
    projection after attention, whose input attention keeps; GELU its slope. Under sequence
    parallelism a column layer keeps this rank's tokens only, and a dropped mask is of numbers.
    """
    layers, wide = c.layers, has.heads * (c.hidden // c.heads)
    rows, mine = b * s, b * has.tokens
    norms = (2 * layers + 1) * mine * (c.hidden + 4)
    products = layers * (2 * mine * c.hidden + rows * has.units) + mine * c.hidden
    core = has.heads * rows * (s if s * s <= KEPT else 1)
    attention = layers * (4 * rows * wide + core)
    gelu = layers * rows * has.units
    numbers = norms + products + attention + gelu
    return e * numbers + _masks(c, mine, e, has) + _ends(rows, e, has)


def _masks(c: GPTConfig, rows: int, e: int, has: Shares) -> int:
    if not c.dropout:
        return 0
    each = rows * c.hidden
    return (2 * c.layers + 1) * (each * e if has.sequence_parallel else math.ceil(each / 8))


def _ends(rows: int, e: int, has: Shares) -> int:
    """Of embedding and loss: token numbers of 8 bytes, exponentials, and a sum a row."""
    loss = e * rows * has.words + e * rows
    if has.ways == 1 and not has.sequence_parallel:
        return 8 * rows + 8 * rows + loss
    looked_up = (8 + e) * rows  # and whether the token is here
    if has.ways == 1:
        return looked_up + loss + 8 * rows
    return looked_up + loss + (8 + 8 + 1 + 1) * rows + has.words
