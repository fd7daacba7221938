"""The communicator: send, receive and split, the same for simulated ranks and for MPI.

Communicator checks arguments, counts messages and reserves tags. The worlds (simulated/world.py,
mpi/world.py, comm_self.py) carry the messages: they define _isend, _irecv, _start, _check and
_split. The collectives are functions over a Communicator (collectives/); this file imports none.
"""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from functools import partial
from types import TracebackType
from typing import Any, Protocol
from weakref import WeakValueDictionary

import numpy as np

from ..kernels import arrays as xp
from .call_site import call_site
from .guard.fingerprint import Fingerprint, describe_group

MAX_TAG = 32_767  # the MPI standard promises no more; larger tags work on some libraries only
RESERVED = 32_000  # tags from this one on belong to the collectives (collectives/tags.py)
# Nonblocking collectives of one communicator run at the same time, each in a slot: WIDTH tags of
# its own, so that their messages never meet.
WIDTH, SLOTS = 12, 63


class Request(ABC):
    """A message or a collective that has started; it owns its buffers until `wait` returns."""

    @abstractmethod
    def wait(self) -> Any:
        """Block until the operation is complete; return the buffer or the collective's result."""

    @abstractmethod
    def is_completed(self) -> bool:
        """Whether `wait` would return at once. Asking also lets started operations progress."""


def wait_all(requests: Iterable[Request]) -> None:
    """Block until all requests are complete."""
    for request in requests:
        request.wait()


class MessageCounter(Protocol):
    """A ledger, as far as a communicator needs to know it."""

    def count(
        self, source: int, dest: int, collective: str, tag: int, array: xp.ndarray
    ) -> None: ...


class Communicator(ABC):
    """A group of `size` ranks, numbered from 0; this process or simulated rank is `rank`.

    Tags from 32000 on belong to the collectives, so a user's message never meets one of theirs.
    """

    rank: int
    size: int
    ranks: tuple[int, ...]  # the number in the world of each rank of this group
    native: Any = None  # the mpi4py communicator; None for simulated ranks
    cuda_aware = False  # whether the transport can read and write a GPU's memory
    debug = 0  # MINIDIST_DEBUG: 1 compares the ranks' calls, 2 also their lines
    inside = ""  # the name of the collective that is running
    shift = 0  # added to the tags of a nonblocking collective
    numbers = 0  # collectives started so far
    prefix = ""  # of the numbers of collectives inside a nonblocking one: "7." makes 7.0, 7.1
    site = ""  # the line that started the nonblocking collective

    def isend(
        self, array: xp.ndarray, dest: int, tag: int = 0, synchronous: bool = False
    ) -> Request:
        """Start sending; `array` must not change before the request's `wait` returns.

        `synchronous` (or issend): `wait` returns only once the receiver is taking the message.
        """
        dest, tag = self._checked("isend", "dest", array, dest, tag)
        if self.ledger is not None:
            source, to = self.ranks[self.rank], self.ranks[dest]
            self.ledger.count(source, to, self.inside, tag, array)
        return self._isend(array, dest, self._shifted(tag), synchronous)

    def irecv(self, out: xp.ndarray, source: int, tag: int = 0) -> Request:
        """Start receiving; `out` holds the message once the request's `wait` has returned it."""
        source, tag = self._checked("irecv", "source", out, source, tag)
        if not getattr(out.flags, "writeable", True):
            raise ValueError(f"rank {self.rank} irecv: `out` is read-only, receive into a copy")
        return self._irecv(out, source, self._shifted(tag))

    def send(self, array: xp.ndarray, dest: int, tag: int = 0) -> None:
        """Send, and wait until `array` may be changed again: as a rule, until it was received."""
        self.isend(array, dest, tag).wait()

    def issend(self, array: xp.ndarray, dest: int, tag: int = 0) -> Request:
        """isend whose `wait` returns only once the receiver is taking the message."""
        return self.isend(array, dest, tag, synchronous=True)

    def ssend(self, array: xp.ndarray, dest: int, tag: int = 0) -> None:
        """Send, and wait until the receiver takes the message.

        A program that runs with every send synchronous does not rely on the library's buffering.
        """
        self.issend(array, dest, tag).wait()

    def recv(self, out: xp.ndarray, source: int, tag: int = 0) -> xp.ndarray:
        """Fill `out` with the next message from `source`, and return it."""
        return self.irecv(out, source, tag).wait()

    def sendrecv(
        self, array: xp.ndarray, dest: int, out: xp.ndarray, source: int, tag: int = 0
    ) -> xp.ndarray:
        """Send and receive at the same time: a ring of these cannot deadlock, unlike sends."""
        self._checked("sendrecv", "dest", array, dest, tag)
        receiving = self.irecv(out, source, tag)
        sending = self.isend(array, dest, tag)
        receiving.wait()
        sending.wait()
        return out

    def split(self, color: int | None, key: int = 0) -> Communicator | None:
        """Every rank calls this; those with one `color` form a new communicator.

        Its ranks are ordered by `key`, then by old rank. A rank with color None gets None.
        """
        if color is not None and operator.index(color) < 0:
            raise ValueError(f"rank {self.rank} split(color={color}): use 0 or more, or None")
        with self.collective("split"):
            part = self._split(color, operator.index(key))
        if part is not None:
            part._ledger_cell = self._ledger_cell
        return part

    def collective(
        self, name: str, array: xp.ndarray | None = None, label: str = "", shape: Any = None,
        **arguments: Any,
    ) -> InCollective:  # fmt: skip
        """A `with` block around a collective's messages, which are counted under `name`.

        In debug mode all ranks first compare their calls: `arguments` (reduction, root, counts,
        algorithm), dtype and `shape`, the part of the array's shape that must agree on all ranks;
        by default the whole.
        """
        number, self.numbers = self.numbers, self.numbers + 1
        if not self.debug:
            return InCollective(self, name, None)
        if array is not None:
            arguments |= {"dtype": array.dtype, "shape": array.shape if shape is None else shape}
        texts = {key: _text(value) for key, value in arguments.items() if value is not None}
        rank, group = str(self.ranks[self.rank]), describe_group(self.ranks)
        called, site = f"{self.prefix}{number}", self.site or call_site()
        mine = Fingerprint(rank, group, called, name, label=label, site=site, **texts)
        return InCollective(self, name, mine)

    def start(self, collective: Callable[..., Any], *args: Any, **options: Any) -> Request:
        """Start collective(comm, …) without waiting for it; the request's `wait` gives its result.

        Every rank starts the same collectives in the same order. At most SLOTS - 1 run at the same
        time: one more waits for the oldest.
        """
        slot = 1 + self.numbers % (SLOTS - 1)
        if slot in self._started:
            self._started[slot].wait()
        _ = self._ledger_cell  # create it now, or the copy would get a cell that no Ledger sees
        view = copy(self)
        view.shift, view.prefix, view.numbers = slot * WIDTH, f"{self.numbers}.", 0
        view.site = call_site() if self.debug else ""
        self.numbers += 1
        request = self._start(partial(collective, view, *args, **options), collective.__name__)
        self._started[slot] = request
        return request

    @property
    def ledger(self) -> MessageCounter | None:
        """The ledger that counts messages of this communicator and of those split from it."""
        return self._ledger_cell[0]

    @ledger.setter
    def ledger(self, ledger: MessageCounter | None) -> None:
        self._ledger_cell[0] = ledger

    @functools.cached_property
    def _ledger_cell(self) -> list[MessageCounter | None]:
        # A list of one: splits and nonblocking collectives share it, so a Ledger sees them too.
        return [None]

    @functools.cached_property
    def _started(self) -> WeakValueDictionary[int, Request]:
        # Nonblocking collectives by slot. Weak: a request that the user dropped frees its buffers.
        return WeakValueDictionary()

    def reducing(self, combine: xp.ufunc) -> Any:
        """`combine` itself; on a simulated clock, with the time of its operations added."""
        return combine

    def compute(self, flops: float) -> None:
        """Advance a simulated clock by the time of that many operations."""
        return

    def abort(self, code: int) -> None:
        """End every rank at once."""
        raise SystemExit(code)

    def _collective_ended(self) -> None:
        return None

    def _shifted(self, tag: int) -> int:
        return tag + self.shift if tag >= RESERVED else tag

    def _checked(
        self, verb: str, side: str, array: xp.ndarray, peer: int, tag: int
    ) -> tuple[int, int]:
        where = f"rank {self.rank} {verb}"
        check_array(where, array)
        peer, tag = operator.index(peer), operator.index(tag)
        if not 0 <= peer < self.size:
            raise ValueError(f"{where}: {side}={peer}, but ranks are 0 to {self.size - 1}")
        if not 0 <= tag <= MAX_TAG:
            raise ValueError(f"{where}: tag={tag}, but tags are 0 to {MAX_TAG}")
        return peer, tag

    @abstractmethod
    def time(self) -> float:
        """Seconds on this world's clock: real time, or a simulated clock's."""

    @abstractmethod
    def _isend(self, array: xp.ndarray, dest: int, tag: int, synchronous: bool) -> Request: ...

    @abstractmethod
    def _irecv(self, out: xp.ndarray, source: int, tag: int) -> Request: ...

    @abstractmethod
    def _start(self, main: Callable[[], Any], call: str) -> Request: ...

    @abstractmethod
    def _check(self, mine: Fingerprint) -> None: ...

    @abstractmethod
    def _split(self, color: int | None, key: int) -> Communicator | None: ...


class InCollective:
    """The `with` block of Communicator.collective."""

    __slots__ = ("comm", "mine", "name", "outer")

    def __init__(self, comm: Communicator, name: str, mine: Fingerprint | None):
        self.comm, self.name, self.mine = comm, name, mine

    def __enter__(self) -> None:
        if self.mine is not None:
            self.comm._check(self.mine)
        self.outer, self.comm.inside = self.comm.inside, self.name

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:  # fmt: skip
        self.comm.inside = self.outer
        if self.mine is not None:
            self.comm._collective_ended()


def check_array(where: str, array: Any) -> None:
    """Raise unless `array` is a NumPy or CuPy array whose memory holds its values."""
    if type(array) is not np.ndarray:
        _check_kind(where, array)
    if array.dtype.hasobject:
        raise TypeError(
            f"{where}: dtype {array.dtype} holds pointers, which mean nothing on another rank: "
            "convert it to a number's dtype"
        )


def _text(value: Any) -> str:
    """A value as ranks compare it: a user's function by its name, not by its address."""
    if not callable(value) or isinstance(value, np.dtype):
        return str(value)
    return getattr(value, "__qualname__", type(value).__qualname__)


FOR_TENSORS = {  # the function in minidist.ops.communication, where its name is another
    "all_reduce": "reduce", "isend": "sendrecv", "irecv": "sendrecv", "scan": "",
}  # fmt: skip


def _check_kind(where: str, array: Any) -> None:
    """Refuse values that are not arrays, and kinds of arrays that hold more than their memory."""
    kind = type(array).__name__
    if any(k.__module__ == "minidist.tensor.tensor" for k in type(array).__mro__):  # not imported
        raise TypeError(f"{where}: needs a NumPy array, got a {kind}: {_for_tensors(where)}")
    if not isinstance(array, xp.ndarray):
        raise TypeError(f"{where}: needs a NumPy array, got {kind}: wrap it in np.asarray")
    if isinstance(array, np.ma.MaskedArray):
        raise TypeError(f"{where}: the mask of a masked array would be lost: pass array.filled(…), "
                        "and its mask as another array")  # fmt: skip
    if isinstance(array, np.matrix):
        raise TypeError(f"{where}: an np.matrix always has two dimensions, so it cannot be cut "
                        "into parts: pass np.asarray(matrix)")  # fmt: skip


def _for_tensors(where: str) -> str:
    """For `rank 0 all_reduce`: the collective for tensors, which has a gradient."""
    verb = where.split()[-1]
    name = FOR_TENSORS.get(verb, verb)
    without = f"without a gradient pass tensor.data to {verb}"
    if not name:
        return f"no {verb} of tensors has a gradient; {without}"
    return f"with a gradient use minidist.ops.communication.{name}(tensor, comm), {without}"


def describe(array: xp.ndarray) -> str:
    """`float32 (3,) = 12 bytes`."""
    return f"{array.dtype} {array.shape} = {array.nbytes} bytes"
