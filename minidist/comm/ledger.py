"""Messages and bytes that one rank sends through a communicator, counted exactly."""

from __future__ import annotations

from collections import defaultdict

from .communicator import Communicator


class Ledger:
    """`with Ledger(comm) as ledger:` counts this rank's sends by (source, dest, tag).

    What an MPI library sends inside its own collectives (algorithm "native") it cannot see.
    """

    def __init__(self, comm: Communicator):
        self.comm = comm
        self.sent: dict[tuple[int, int, int], list[int]] = defaultdict(lambda: [0, 0])

    def __enter__(self) -> Ledger:
        self.outer, self.comm.ledger = self.comm.ledger, self
        return self

    def __exit__(self, *error: object) -> None:
        self.comm.ledger = self.outer

    def count(self, source: int, dest: int, tag: int, nbytes: int) -> None:
        """Note one message; a ledger opened around this one notes it too."""
        entry = self.sent[source, dest, tag]
        entry[0] += 1
        entry[1] += nbytes
        if self.outer is not None:
            self.outer.count(source, dest, tag, nbytes)

    @property
    def messages(self) -> int:
        return sum(messages for messages, _ in self.sent.values())

    @property
    def bytes(self) -> int:
        return sum(nbytes for _, nbytes in self.sent.values())

    def table(self) -> str:
        """One line for each (source, dest, tag), and the total."""
        lines = [f"{'source':>6} {'dest':>6} {'tag':>6} {'messages':>9} {'bytes':>15}"]
        for (source, dest, tag), (messages, nbytes) in sorted(self.sent.items()):
            lines.append(f"{source:6} {dest:6} {tag:6} {messages:9,} {nbytes:15,}")
        return "\n".join([*lines, f"{'total':>20} {self.messages:9,} {self.bytes:15,}"])
