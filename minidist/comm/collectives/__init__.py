"""What all ranks do together, written with send and receive: one algorithm family a file."""

from .dissemination import barrier
from .entry import nonblocking
from .exchange import all_to_all, reduce_scatter, scan
from .gathering import all_gather
from .reduction import all_reduce
from .rooted import broadcast, gather, reduce, scatter

iall_gather, iall_reduce = nonblocking(all_gather), nonblocking(all_reduce)
iall_to_all, ibarrier = nonblocking(all_to_all), nonblocking(barrier)
ibroadcast, igather = nonblocking(broadcast), nonblocking(gather)
ireduce, ireduce_scatter = nonblocking(reduce), nonblocking(reduce_scatter)
iscan, iscatter = nonblocking(scan), nonblocking(scatter)

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
