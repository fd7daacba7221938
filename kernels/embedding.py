"""Rows of a table by index, and the sum of cotangents back into the table.

np.add.at adds row after row through a slow general path; sorting the indices first lets one
reduceat sum all the rows of an index together.
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
    if index.size:
        order = np.argsort(index, kind="stable")
        there, starts = np.unique(index[order], return_index=True)
        table[there] = np.add.reduceat(g[order], starts, axis=0)
    return table
