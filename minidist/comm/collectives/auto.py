"""What algorithm="auto" is: by the number of ranks and the bytes of the whole.

The first two columns are what benchmarks/collectives.py measured at 2 and 4 ranks on 2 cores, where
messages go through shared memory and a round costs more than a byte; the other two follow the
formulas of plan/collectives.py, where log2(n) rounds pay, for more ranks than that could measure.
"""

from __future__ import annotations

SMALL = 1 << 18  # bytes: up to here a message's latency counts for more than what is in it
FEW = 8  # ranks: up to here n - 1 short rounds beat log2(n) longer ones

AUTO = {  # few ranks: small, large; many: small, large
    "all_gather": ("ring", "ring", "bruck", "ring"),
    "all_reduce": ("doubling", "ring", "doubling", "ring"),
    "all_to_all": ("pairwise", "pairwise", "pairwise", "pairwise"),
    "barrier": ("dissemination",) * 4,
    "broadcast": ("linear", "linear", "tree", "chain"),
    "gather": ("linear", "linear", "tree", "linear"),
    "reduce": ("tree", "tree", "tree", "chain"),
    "reduce_scatter": ("pairwise", "pairwise", "halving", "pairwise"),
    "scan": ("chain", "chain", "doubling", "doubling"),
    "scatter": ("linear", "linear", "tree", "linear"),
}


def choose(collective: str, algorithm: str, size: int, nbytes: int) -> str:
    """The algorithm itself, or what "auto" is for so many ranks and bytes, alike on all ranks."""
    if algorithm != "auto":
        return algorithm
    return AUTO[collective][2 * (size > FEW) + (nbytes > SMALL)]
