"""Digits: 1,797 real handwritten digits of 8×8 pixels, as scikit-learn carries them."""

from __future__ import annotations

import numpy as np

from ..errors import UserError
from ..tensor import random

HELD_OUT = 5  # every fifth image of each class
Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def load_digits(seed: int = 0) -> Split:
    """x (n, 8, 8) in [0, 1] and y (n,) to train on, then x and y of the fifth held out.

    Shuffled by the seed; every class gives a fifth of its images (Alpaydin & Kaynak 1998, UCI).
    """
    try:
        from sklearn.datasets import load_digits as bundled
    except ImportError:
        raise UserError("the digits come with scikit-learn: pip install scikit-learn") from None
    images, labels = bundled(return_X_y=True)
    x, y = (images.reshape(-1, 8, 8) / 16).astype(np.float32), labels.astype(np.int64)
    order = random.generator(seed, "digits").permutation(len(y))
    held_out = np.zeros(len(y), bool)
    for label in np.unique(y):
        rows = order[y[order] == label]
        held_out[rows[: len(rows) // HELD_OUT]] = True
    train, test = order[~held_out[order]], order[held_out[order]]
    return x[train], y[train], x[test], y[test]
