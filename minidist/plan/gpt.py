"""What a forward pass of our GPT keeps for backward, exactly, on a rank of any layout."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ..kernels.attention import KEPT
from ..models.gpt import GPTConfig, Shares


def activation_bytes(
    c: GPTConfig, b: int, s: int, e: int, has: Shares, part: Sequence[int] | None = None
) -> int:
    """b rows of s tokens, e bytes a number; a layer's share is 32·s·b·h and its core at e = 2.

    Norms keep their input and four numbers a row; linear layers what they multiply, but for the
    projection after attention, whose input attention keeps; GELU its slope. Under sequence
    parallelism a column layer keeps this rank's tokens only, and a dropped mask is of numbers.
    `part`: the layers of a pipeline's stage, with the embedding at the first and the loss at the
    last; by default all.
    """
    part = range(c.layers) if part is None else part
    first, last = part[0] == 0, part[-1] == c.layers - 1
    layers, wide = len(part), has.heads * (c.hidden // c.heads)
    rows, mine = b * s, b * has.tokens
    norms = (2 * layers + last) * mine * (c.hidden + 4)
    products = layers * (2 * mine * c.hidden + rows * has.units) + last * mine * c.hidden
    core = has.heads * rows * (s if s * s <= KEPT else 1)
    attention = layers * (4 * rows * wide + core)
    gelu = layers * rows * has.units
    numbers = norms + products + attention + gelu
    masks = (2 * layers + first) * _mask(mine * c.hidden, e, has) if c.dropout else 0
    return e * numbers + masks + first * _embedding(rows, e, has) + last * _loss(rows, e, has)


def _mask(numbers: int, e: int, has: Shares) -> int:
    return numbers * e if has.sequence_parallel else math.ceil(numbers / 8)


def _embedding(rows: int, e: int, has: Shares) -> int:
    """Token numbers of 8 bytes; of a part of the vocabulary also whether the token is here."""
    return 8 * rows if has.ways == 1 and not has.sequence_parallel else (8 + e) * rows


def _loss(rows: int, e: int, has: Shares) -> int:
    """Exponentials and a sum a row, and targets."""
    numbers = e * rows * has.words + e * rows
    return numbers + (8 * rows if has.ways == 1 else (8 + 8 + 1 + 1) * rows + has.words)
