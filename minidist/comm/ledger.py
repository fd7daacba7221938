"""Messages and bytes that ranks send through a communicator, counted exactly."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from .collectives.all_gather import all_gather_bytes
from .communicator import Communicator, MessageCounter


class Route(NamedTuple):
    """The key that messages are counted under.

    `collective` is "" for a message that the user sent. Ranks are numbers in the world.
    """

    source: int
    dest: int
    collective: str
    tag: int


class Message(NamedTuple):
    """One message, as it was sent."""

    source: int
    dest: int
    collective: str
    tag: int
    dtype: str
    shape: tuple[int, ...]
    nbytes: int


BUS = {  # the least that each rank must send, in units of S
    "all_reduce": lambda n: 2 * (n - 1) / n,
    **dict.fromkeys(
        ("all_gather", "reduce_scatter", "all_to_all", "scatter", "gather"), lambda n: (n - 1) / n
    ),
    **dict.fromkeys(("broadcast", "reduce"), lambda n: 1.0),
}


def bus_bandwidth(collective: str, nbytes: int, size: int, seconds: float) -> float:
    """Bytes a second on each link: nbytes / seconds times the share that a rank must send.

    `nbytes` is the buffer of one rank before an all_reduce, reduce_scatter or all_to_all, the
    buffer after an all_gather, and the whole array of a scatter or gather. This is the convention
    of nccl-tests (doc/PERFORMANCE.md), which makes numbers of different sizes comparable.

    >>> bus_bandwidth("all_reduce", 4_000_000, 4, seconds=0.001)
    6000000000.0
    """
    if collective not in BUS:
        raise ValueError(f"bus_bandwidth({collective!r}): known are {', '.join(BUS)}")
    return BUS[collective](size) * nbytes / seconds


class Ledger:
    """`with Ledger(comm) as ledger:` counts this rank's sends by Route, also those through splits.

    With `log`, `messages_sent` also lists each message. Messages that an MPI library sends inside
    its own collectives (algorithm "native") are invisible to it; the guard's are left out.
    """

    def __init__(self, comm: Communicator, log: bool = False):
        self.comm = comm
        self.sent: dict[Route, list[int]] = defaultdict(lambda: [0, 0])
        self.messages_sent: list[Message] | None = [] if log else None
        self.outer: MessageCounter | None = None

    def __enter__(self) -> Ledger:
        self.outer, self.comm.ledger = self.comm.ledger, self
        return self

    def __exit__(self, *error: object) -> None:
        self.comm.ledger = self.outer

    def count(self, source: int, dest: int, collective: str, tag: int, array: np.ndarray) -> None:
        """Note one message; a ledger opened around this one notes it too."""
        entry = self.sent[Route(source, dest, collective, tag)]
        entry[0] += 1
        entry[1] += array.nbytes
        if self.messages_sent is not None:
            dtype = array.dtype.name if array.dtype.kind == "V" else array.dtype.str
            what = (dtype, tuple(array.shape), array.nbytes)
            self.messages_sent.append(Message(source, dest, collective, tag, *what))
        if self.outer is not None:
            self.outer.count(source, dest, collective, tag, array)

    @property
    def messages(self) -> int:
        return sum(messages for messages, _ in self.sent.values())

    @property
    def bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.sent.values())

    def by(self, *fields: str) -> dict[tuple, tuple[int, int]]:
        """(messages, bytes) by some fields of a Route: `ledger.by("collective")`."""
        sums: dict[tuple, tuple[int, int]] = defaultdict(lambda: (0, 0))
        for route, (messages, nbytes) in self.sent.items():
            key = tuple(getattr(route, field) for field in fields)
            sums[key] = sums[key][0] + messages, sums[key][1] + nbytes
        return dict(sums)

    def of_all_ranks(self) -> Ledger:
        """Every rank's counts in one ledger, on every rank. All ranks call it."""
        together = Ledger(self.comm)
        mine = json.dumps([[*route, *counts] for route, counts in self.sent.items()])
        counting, self.comm.ledger = self.comm.ledger, None
        for text in all_gather_bytes(self.comm, mine.encode()):
            for *route, messages, nbytes in json.loads(text):
                entry = together.sent[Route(*route)]
                entry[0] += messages
                entry[1] += nbytes
        self.comm.ledger = counting
        return together

    def table(self) -> str:
        """One line for each Route, and the total."""
        lines = [f"{'source':>6} {'dest':>6} {'collective':<15}{'tag':>6} {'messages':>10} "
                 f"{'bytes':>16}"]  # fmt: skip
        for (source, dest, name, tag), (messages, nbytes) in sorted(self.sent.items()):
            lines.append(f"{source:6} {dest:6} {name:<15}{tag:6} {messages:10,} {nbytes:16,}")
        return "\n".join([*lines, f"{'total':<35} {self.messages:10,} {self.bytes:16,}"])
