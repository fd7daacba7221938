"""Two decorators of the collectives: staging of GPU arrays through the host, nonblocking forms.

The inner functions have names like `by_host.<locals>.staged`. The finder of call sites
(comm/call_site.py) skips such frames, so a deadlock is reported under the collective's own name.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ...kernels import arrays as xp
from ..communicator import Communicator, Request

Collective = Callable[..., Any]


def by_host(collective: Collective) -> Collective:
    """Copy an array on a GPU to the host as a whole, once, and copy the result back.

    If the communicator is `cuda_aware` or has one rank, the array stays on the GPU.
    """

    @wraps(collective)
    def staged(comm: Communicator, array: Any, *args: Any, **options: Any) -> Any:
        if comm.cuda_aware or comm.size == 1 or not xp.on_gpu(array):
            return collective(comm, array, *args, **options)
        out = options.pop("out", None)
        result = collective(comm, array.get(), *args, **options)
        if out is None:
            return None if result is None else xp.at_home_of(array, result)
        out.set(result)
        return out

    return staged


def nonblocking(collective: Collective) -> Callable[..., Request]:
    """Start the collective and return a Request at once; its `wait` gives the result.

    The arrays must not change before that. On MPI the collective advances whenever this rank
    communicates.
    """

    @wraps(collective)
    def start(comm: Communicator, *args: Any, **options: Any) -> Request:
        return comm.start(collective, *args, **options)

    start.__name__ = start.__qualname__ = "i" + collective.__name__
    start.__doc__ = f"{collective.__name__} that does not wait. {nonblocking.__doc__}"
    return start
