"""Fingerprints of collective calls: in debug mode the ranks compare them before any message."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, fields

import numpy as np

from ..errors import MismatchError

BYTES = 1024
NEVER_COMPARED = ("rank", "label", "site")


@dataclass(frozen=True)
class Fingerprint:
    """A collective as one rank calls it. `rank` is its number in the world; '' means unknown."""

    rank: str
    group: str
    number: str
    operation: str
    dtype: str = ""
    shape: str = ""
    reduction: str = ""
    root: str = ""
    counts: str = ""
    algorithm: str = ""
    label: str = ""
    site: str = ""

    def encode(self) -> np.ndarray:
        """The fields in BYTES bytes; longer texts are cut."""
        room = BYTES // len(fields(self)) - 1
        parts = [" ".join(text.splitlines()).encode() for text in astuple(self)]
        spare = BYTES - sum(min(len(p), room) + 1 for p in parts[:-1]) - 1
        line = b"\n".join([*(p[:room] for p in parts[:-1]), parts[-1][-spare:]])
        return np.frombuffer(line.ljust(BYTES, b"\0"), np.uint8)

    @staticmethod
    def decode(message: np.ndarray) -> Fingerprint:
        text = message.tobytes().rstrip(b"\0").decode(errors="replace")
        return Fingerprint(*text.split("\n"))

    def __str__(self) -> str:
        arguments = [f"{self.dtype} {self.shape}".strip()]
        arguments += [
            f"{name}={getattr(self, name)}"
            for name in ("reduction", "root", "counts", "algorithm")
            if getattr(self, name)
        ]
        label = f" '{self.label}'" if self.label else ""
        call = f"{self.operation}({', '.join(filter(None, arguments))}){label}"
        return f"rank {self.rank}: {call} #{self.number} of ranks {self.group}  at {self.site}"


def compare(prints: Sequence[Fingerprint], sites: bool = False) -> None:
    """Raise MismatchError, with both call sites, unless all ranks make the same call.

    `sites`: also refuse calls from different lines.
    """
    names = [f.name for f in fields(Fingerprint) if f.name not in NEVER_COMPARED]
    for name in [*names, *(["site"] if sites else [])]:
        first, other = _differing(prints, name)
        if other is not None:
            was, now = getattr(first, name), getattr(other, name)
            raise MismatchError(
                f"ranks do not call the same collective: {name} is {was} on rank {first.rank}, "
                f"but {now} on rank {other.rank}\n  {first}\n  {other}\n"
                "every rank of a group must make the same collective calls in the same order"
            )


def _differing(prints: Iterable[Fingerprint], name: str) -> tuple[Fingerprint, Fingerprint | None]:
    known = sorted((p for p in prints if getattr(p, name)), key=lambda p: int(p.rank))
    first = known[0] if known else Fingerprint("0", "", "", "")
    return first, next((p for p in known if getattr(p, name) != getattr(first, name)), None)


def describe_group(ranks: Sequence[int]) -> str:
    """`0 to 7`, or `0, 3, 5` up to a dozen, or the first and a sum that tells groups apart."""
    if list(ranks) == list(range(ranks[0], ranks[0] + len(ranks))):
        return f"{ranks[0]} to {ranks[-1]}" if len(ranks) > 1 else str(ranks[0])
    if len(ranks) <= 12:
        return ", ".join(map(str, ranks))
    return f"{ranks[0]}, {ranks[1]} … ({len(ranks)} of them, hash {hash(tuple(ranks)):x})"
