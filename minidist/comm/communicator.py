"""What a rank can say to another: send, receive, split; the same in every world."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from copy import copy
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from ..kernels import arrays as xp
from .guard.fingerprint import Fingerprint, of_group
from .sites import here

if TYPE_CHECKING:
    from .ledger import Ledger

MAX_TAG = 32_767  # all that the MPI standard promises; larger tags work on some libraries only
RESERVED = 32_000  # from here on tags are the collectives'
WIDTH, SLOTS = 12, 63  # tags of one collective; collectives of a communicator under way at once


class Request(ABC):
    """A message under way, or a collective; it owns its buffers until `wait` returns."""

    @abstractmethod
    def wait(self) -> Any:
        """Block until it is done; return the message's buffer or the collective's result."""

    @abstractmethod
    def is_completed(self) -> bool:
        """Whether `wait` would return at once. To ask lets what is under way go on."""


def wait_all(requests: Iterable[Request]) -> None:
    """Block until all of them are done."""
    for request in requests:
        request.wait()


class Communicator(ABC):
    """`size` ranks that know each other by number; this one is `rank`.

    Tags from 32000 on belong to the collectives: a message of yours never meets one of theirs.
    """

    rank: int
    size: int
    ranks: tuple[int, ...]  # their numbers in the world
    native: Any = None  # the MPI library's own communicator, where there is one
    cuda_aware = False  # whether arrays on a GPU may be given to the transport as they are
    debug = 0  # MINIDIST_DEBUG: 1 compares what ranks call, 2 also from where
    inside = ""  # the collective under way
    shift = 0  # added to the tags of a collective that goes on beside others
    numbers = 0  # collectives begun
    prefix = ""  # of the numbers of what goes on beside others
    site = ""  # where that was started

    def isend(
        self, array: xp.ndarray, dest: int, tag: int = 0, synchronous: bool = False
    ) -> Request:
        """Start sending; `array` must not change before the request's `wait` returns.

        `synchronous` (or issend): `wait` returns only once the receiver is taking the message.
        """
        dest, tag = self._checked("isend", "dest", array, dest, tag)
        if self.ledger is not None:
            here, there = self.ranks[self.rank], self.ranks[dest]
            self.ledger.count(here, there, self.inside, tag, array)
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
        """Send, and wait until the receiver has called: a program that is right with every send
        made so is right whatever the library buffers."""
        self.issend(array, dest, tag).wait()

    def recv(self, out: xp.ndarray, source: int, tag: int = 0) -> xp.ndarray:
        """Fill `out` with the next message from `source`, and return it."""
        return self.irecv(out, source, tag).wait()

    def sendrecv(
        self, array: xp.ndarray, dest: int, out: xp.ndarray, source: int, tag: int = 0
    ) -> xp.ndarray:
        """Send and receive at once: a ring of these cannot deadlock, a ring of `send` does."""
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
            part._books = self._books
        return part

    def collective(
        self, name: str, array: xp.ndarray | None = None, label: str = "", shape: Any = None,
        **told: Any,
    ) -> Inside:  # fmt: skip
        """Around a collective's messages: they are counted under `name`, and with debug on all
        ranks first compare what they call (`told`: op, root, counts, algorithm).

        `shape` is what of the array's all ranks must share; by default its whole shape.
        """
        number, self.numbers = self.numbers, self.numbers + 1
        if not self.debug:
            return Inside(self, name, None)
        if array is not None:
            told |= {"dtype": array.dtype, "shape": array.shape if shape is None else shape}
        texts = {key: str(value) for key, value in told.items() if value is not None}
        rank, group = str(self.ranks[self.rank]), of_group(self.ranks)
        called = f"{self.prefix}{number}"
        site = self.site or here()
        return Inside(
            self, name, Fingerprint(rank, group, called, name, label=label, site=site, **texts)
        )

    def start(self, collective: Callable[..., Any], *args: Any, **options: Any) -> Request:
        """Let collective(comm, …) go on beside what this rank does next; `wait` gives its result.

        Every rank starts the same in the same order. At most SLOTS - 1 go on at once: one more
        waits for the oldest.
        """
        slot = 1 + self.numbers % (SLOTS - 1)
        if slot in self._works:
            self._works[slot].wait()
        _ = self._books  # or the view would have its own, of which no Ledger here knows
        view = copy(self)
        view.shift, view.prefix, view.numbers = slot * WIDTH, f"{self.numbers}.", 0
        view.site = here() if self.debug else ""
        self.numbers += 1
        work = self._start(partial(collective, view, *args, **options), collective.__name__)
        self._works[slot] = work
        return work

    @property
    def ledger(self) -> Ledger | None:
        """Who counts what is sent here and through the communicators split from here."""
        return self._books[0]

    @ledger.setter
    def ledger(self, ledger: Ledger | None) -> None:
        self._books[0] = ledger

    @functools.cached_property
    def _books(self) -> list[Ledger | None]:
        return [None]

    @functools.cached_property
    def _works(self) -> WeakValueDictionary[int, Request]:
        return WeakValueDictionary()

    def reducing(self, combine: xp.ufunc) -> Any:
        """`combine`, whose operations a simulated clock also counts."""
        return combine

    def compute(self, flops: float) -> None:
        """Let a simulated clock go on by the time of that many operations."""
        return

    def abort(self, code: int) -> None:
        """End every rank at once."""
        raise SystemExit(code)

    def _left(self) -> None:
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
        """Seconds on this world's clock, which a simulated one may give itself."""

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


class Inside:
    """`with` it, a communicator is in the collective of that name."""

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
            self.comm._left()


def check_array(where: str, array: xp.ndarray) -> None:
    """Raise unless `array` is an array, NumPy's or CuPy's, whose memory is its value."""
    if not isinstance(array, xp.ndarray):
        kind = type(array).__name__
        raise TypeError(f"{where}: needs a NumPy array, got {kind}: wrap it in np.asarray")
    if array.dtype.hasobject:
        raise TypeError(
            f"{where}: dtype {array.dtype} holds pointers, which mean nothing on another rank: "
            "convert it to a number's dtype"
        )


def describe(array: xp.ndarray) -> str:
    """`float32 (3,) = 12 bytes`."""
    return f"{array.dtype} {array.shape} = {array.nbytes} bytes"
