"""What algorithm="auto" is: by the bytes of the whole, as benchmarks/collectives.py measured."""

from __future__ import annotations

SMALL = 1 << 18  # bytes: up to here a message's latency counts for more than what is in it

AUTO = {  # collective: (up to SMALL bytes, beyond)
    "all_gather": ("bruck", "ring"),
    "all_reduce": ("doubling", "ring"),
    "all_to_all": ("pairwise", "pairwise"),
    "barrier": ("dissemination", "dissemination"),
    "broadcast": ("tree", "chain"),
    "gather": ("tree", "linear"),
    "reduce": ("tree", "chain"),
    "reduce_scatter": ("halving", "pairwise"),
    "scan": ("doubling", "doubling"),
    "scatter": ("tree", "linear"),
}


def choose(collective: str, algorithm: str, nbytes: int) -> str:
    """The algorithm itself, or what "auto" is for so many bytes (the same number on all ranks)."""
    return AUTO[collective][nbytes > SMALL] if algorithm == "auto" else algorithm
