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
from .collectives.all_gather import all_gather_bytes
from .comm_self import CommSelf
from .communicator import Communicator, Request, wait_all
from .environment import local_rank, world_from_env
from .errors import CommError, DeadlineError, DeadlockError, MismatchError, MpiError, UnmatchedError
from .guard.abort import AgreedExit, abort_on_error, agree
from .ledger import Ledger, bus_bandwidth
from .printing import print_in_order
from .shards import shard_bounds, shard_range
from .simulated.clock import Clock

if TYPE_CHECKING:
    from .launcher import launch
    from .mpi.world import mpi_world
    from .simulated.world import simulate

# Loaded at first use, because they need greenlet and threadpoolctl: counting and planning do not.
LAZY = {
    "launch": "minidist.comm.launcher",
    "simulate": "minidist.comm.simulated.world",
    "mpi_world": "minidist.comm.mpi.world",
}

__all__ = [
    "AgreedExit",
    "Clock",
    "CommError",
    "CommSelf",
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
    "all_gather_bytes",
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


def __dir__() -> list[str]:
    return sorted({*globals(), *LAZY})
