"""Contraction of two arrays over letters, as Einstein writes it: batches of matrix products."""

from __future__ import annotations

import math

from .linear import multiply


def contract(x, y, a, b, out):
    """x with letters a, y with b -> letters out: batches of matrix products."""
    batch = [c for c in a if c in b and c in out]
    inner = [c for c in a if c in b and c not in out]
    left, right = [c for c in a if c not in b], [c for c in b if c not in a]
    size = dict(zip(a + b, x.shape + y.shape))
    count = lambda letters: math.prod(size[c] for c in letters)
    lead, k = [size[c] for c in batch], count(inner)
    x = x.transpose([a.index(c) for c in batch + left + inner]).reshape(*lead, count(left), k)
    y = y.transpose([b.index(c) for c in batch + inner + right]).reshape(*lead, k, count(right))
    z = (multiply(x, y) if inner else x * y).reshape([size[c] for c in batch + left + right])
    return z.transpose([(batch + left + right).index(c) for c in out])
