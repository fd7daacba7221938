"""Ranks and messages: communicators, simulated or real, and collectives over them."""

from typing import TYPE_CHECKING, Any

from .collectives import (  # fmt: skip
    all_gather,
    all_reduce,
    all_to_all,
    barrier,
    broadcast,
    gather,
    iall_gather,
    iall_reduce,
    iall_to_all,
    ibarrier,
    ibroadcast,
    igather,
    ireduce,
    ireduce_scatter,
    iscan,
    iscatter,
    reduce,
    reduce_scatter,
    scan,
    scatter,
)
from .communicator import Communicator, Request, wait_all
from .errors import CommError, DeadlineError, DeadlockError, MismatchError, MpiError, UnmatchedError
from .guard.guard import AgreedExit, abort_on_error, agree
from .ledger import Ledger, bus_bandwidth
from .shards import shard_bounds, shard_range
from .simulated.clock import Clock
from .texts import print_in_order

if TYPE_CHECKING:
    from .launcher import launch
    from .mpi.world import local_rank, mpi_world, world_from_env
    from .simulated.world import simulate

LAZY = {  # these need greenlet or threadpoolctl: loaded when first asked for
    "launch": "minidist.comm.launcher",
    "simulate": "minidist.comm.simulated.world",
    "local_rank": "minidist.comm.mpi.world",
    "mpi_world": "minidist.comm.mpi.world",
    "world_from_env": "minidist.comm.mpi.world",
}

__all__ = [
    "AgreedExit",
    "Clock",
    "CommError",
    "Communicator",
    "DeadlineError",
    "DeadlockError",
    "Ledger",
    "MismatchError",
    "MpiError",
    "Request",
    "UnmatchedError",
    "abort_on_error",
    "agree",
    "all_gather",
    "all_reduce",
    "all_to_all",
    "barrier",
    "broadcast",
    "bus_bandwidth",
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
    "launch",
    "local_rank",
    "mpi_world",
    "print_in_order",
    "reduce",
    "reduce_scatter",
    "scan",
    "scatter",
    "shard_bounds",
    "shard_range",
    "simulate",
    "wait_all",
    "world_from_env",
]


def __getattr__(name: str) -> Any:
    if name not in LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(LAZY[name]), name)
