"""What all ranks do together, written with send and receive: one algorithm family a file."""

from .dissemination import barrier
from .exchange import all_to_all, reduce_scatter, scan
from .gathering import all_gather
from .reduction import all_reduce
from .rooted import broadcast, gather, reduce, scatter

__all__ = [
    "all_gather",
    "all_reduce",
    "all_to_all",
    "barrier",
    "broadcast",
    "gather",
    "reduce",
    "reduce_scatter",
    "scan",
    "scatter",
]
