"""Handwritten digits: 1,797 real 8×8 images that come with scikit-learn (Alpaydin & Kaynak 1998)."""

from __future__ import annotations

import numpy as np

from .. import random
from ..errors import UserError

Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_digits(seed: int = 0, held_out: float = 0.2) -> Split:
    """x, y to train on and x, y held out: images (n, 8, 8) in [0, 1] float32, classes (n,) int64.

    Every class gives the same share to the held-out part, chosen by the seed alone.
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise UserError("the digits come with scikit-learn: pip install scikit-learn") from None
    bunch = bundled()
    x, y = (bunch.images / 16).astype(np.float32), bunch.target.astype(np.int64)
    order = random.generator(seed, "digits").permutation(len(y))
    out = np.zeros(len(y), bool)
    for digit in range(10):
        mine = order[y[order] == digit]
        out[mine[: round(held_out * len(mine))]] = True
    keep, test = order[~out[order]], order[out[order]]
    return x[keep], y[keep], x[test], y[test]
