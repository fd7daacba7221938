"""Collectives, written with send and receive: one a file, under its own name.

Each file holds every algorithm of its collective, from the simplest to the fastest, a table
ALGORITHMS, and the function that users call. auto.py chooses for algorithm="auto".
"""

from .all_gather import all_gather, iall_gather
from .all_reduce import all_reduce, iall_reduce
from .all_to_all import all_to_all, iall_to_all
from .barrier import barrier, ibarrier
from .broadcast import broadcast, ibroadcast
from .gather import gather, igather
from .reduce import ireduce, reduce
from .reduce_scatter import ireduce_scatter, reduce_scatter
from .scan import iscan, scan
from .scatter import iscatter, scatter

__all__ = [
    "all_gather",
    "all_reduce",
    "all_to_all",
    "barrier",
    "broadcast",
    "gather",
    "iall_gather",
    "iall_reduce",
    "iall_to_all",
    "ibarrier",
    "ibroadcast",
    "igather",
    "ireduce",
    "ireduce_scatter",
    "iscan",
    "iscatter",
    "reduce",
    "reduce_scatter",
    "scan",
    "scatter",
]
