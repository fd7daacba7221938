"""Rows of a table by index, and the sum of cotangents back into the table.

np.add.at adds row after row through a slow general path. Sorted by index, equal rows are
neighbours: each round adds every second one of a run to the one before it, so log2(most repeats)
rounds of whole-array additions do, in the order of a tree.
"""

import numpy as np


def naive_backward(g: np.ndarray, index: np.ndarray, rows: int) -> np.ndarray:
    """g (n, h), index (n,) -> (rows, h), one row at a time."""
    table = np.zeros_like(g, shape=(rows, g.shape[1]))
    np.add.at(table, index, g)
    return table


def backward(g: np.ndarray, index: np.ndarray, rows: int) -> np.ndarray:
    """g (n, h), index (n,) -> (rows, h)."""
    table = np.zeros_like(g, shape=(rows, g.shape[1]))
    order = np.argsort(index, kind="stable")
    g, index = g[order], index[order]
    while (odd := _odd_in_run(index)).any():
        at = np.flatnonzero(odd)
        g[at - 1] += g[at]
        g, index = g[~odd], index[~odd]
    table[index] = g
    return table


def _odd_in_run(index: np.ndarray) -> np.ndarray:
    """True for the second, fourth, … of equal neighbours."""
    place = np.arange(len(index))
    first = np.ones(len(index), bool)
    first[1:] = index[1:] != index[:-1]
    return (place - np.maximum.accumulate(np.where(first, place, 0))) % 2 == 1
