"""What all ranks do together, written with send and receive: one algorithm family a file."""

from .dissemination import barrier
from .reduction import all_reduce
from .ring import all_gather
from .tree import broadcast

__all__ = ["all_gather", "all_reduce", "barrier", "broadcast"]
