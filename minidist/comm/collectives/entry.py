"""What all collectives have: arrays on a GPU, and a form that does not wait."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from ...kernels import arrays as xp
from ..communicator import Communicator, Request

Collective = Callable[..., Any]


def by_host(collective: Collective) -> Collective:
    """An array on a GPU goes by way of the host, as a whole and once; its result comes back.

    Where the communicator is `cuda_aware`, or of one rank, it stays there.
    """

    @wraps(collective)
    def call(comm: Communicator, array: Any, *args: Any, **options: Any) -> Any:
        if comm.cuda_aware or comm.size == 1 or not xp.on_gpu(array):
            return collective(comm, array, *args, **options)
        out = options.pop("out", None)
        result = collective(comm, array.get(), *args, **options)
        if out is None:
            return None if result is None else xp.at_home_of(array, result)
        out.set(result)
        return out

    return _named(call, collective.__name__)


def nonblocking(collective: Collective) -> Callable[..., Request]:
    """The same as a Request: it goes on beside what the rank does next; `wait` gives its result.

    Its arrays must not change before. On MPI it gets on whenever this rank communicates.
    """

    @wraps(collective)
    def start(comm: Communicator, *args: Any, **options: Any) -> Request:
        return comm.start(collective, *args, **options)

    _named(start, "i" + collective.__name__)
    start.__doc__ = f"{collective.__name__} that does not wait. {nonblocking.__doc__}"
    return start


def _named(wrapper: Callable[..., Any], name: str) -> Callable[..., Any]:
    # The code's name too: it is what tracebacks and the report of a deadlock show.
    wrapper.__name__ = wrapper.__qualname__ = name
    wrapper.__code__ = wrapper.__code__.replace(co_name=name)
    return wrapper
