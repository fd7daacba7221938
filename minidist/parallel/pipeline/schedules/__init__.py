"""Pipeline schedules by name, each a few lines that say whose turn it is; or from a file."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from math import inf
from pathlib import Path
from typing import NamedTuple

from ....errors import UserError
from ..actions import Schedule
from ..text import load
from .dualpipev import dualpipev
from .forward import forward_only
from .gpipe import gpipe
from .interleaved import interleaved
from .one_f_one_b import one_f_one_b
from .zb_h1 import zb_h1
from .zb_h2 import zb_h2
from .zbv import zbv


class _Maker(NamedTuple):
    """A schedule's function and the chunks a rank that it may have; the fewest by default."""

    of: Callable[..., Schedule]
    fewest: int = 1
    most: float = 1

    def takes(self, chunks: int) -> bool:
        return self.fewest <= chunks <= self.most

    @property
    def has_choice(self) -> bool:
        return self.fewest < self.most


_MAKERS = {
    "gpipe": _Maker(gpipe),
    "1f1b": _Maker(one_f_one_b),
    "interleaved": _Maker(interleaved, 2, inf),
    "zb-h1": _Maker(zb_h1, 1, inf),
    "zb-h2": _Maker(zb_h2),
    "zbv": _Maker(zbv, 2, 2),
    "dualpipev": _Maker(dualpipev, 2, 2),
}
NAMES = tuple(_MAKERS)
__all__ = ["NAMES", "find", "forward_only", "make"]


def find(
    name: str, ranks: int | None, microbatches: int | None, chunks: int | None,
    usual: tuple[int, int], remedy: str,
) -> Schedule:  # fmt: skip
    """The schedule of a name, made for these sizes, or of a CSV file, which must have them.

    `usual` are the ranks and micro-batches for a name where None is given; for a file None is what
    it has. Raises UserError for an unknown name, sizes that a schedule cannot have, or other ones
    than the file's, with the `remedy`.
    """
    if name in NAMES:
        p, m = (u if n is None else n for n, u in zip((ranks, microbatches), usual))
        return make(name, p, m, chunks)
    if not (name.endswith(".csv") or Path(name).exists()):
        raise UserError(f"schedule '{name}': want {', '.join(NAMES)}, or a CSV file{_guess(name)}")
    found = load(name)
    most = max(len(found.stages_of(rank)) for rank in range(found.ranks))
    sizes_of_file = {"pp": found.ranks, "microbatches": found.microbatches, "chunks": most}
    for given, (flag, size) in zip((ranks, microbatches, chunks), sizes_of_file.items()):
        if given not in (None, size):
            raise UserError(f"schedule '{name}' is for --{flag} {size}, not {given}: {remedy}")
    return found


def make(name: str, ranks: int, microbatches: int, chunks: int | None = None) -> Schedule:
    """The schedule of that name, of computing alone; UserError where there is none such.

    `chunks` is the number of stages a rank has; None is what the schedule has, or its fewest.

    >>> make("interleaved", ranks=4, microbatches=8).stages
    8
    """
    maker = _find(name)
    chunks = maker.fewest if chunks is None else chunks
    for flag, size in (("pp", ranks), ("microbatches", microbatches), ("chunks", chunks)):
        if size < 1:
            raise UserError(f"--{flag} {size}: want at least 1")
    if not maker.takes(chunks):
        raise UserError(f"--schedule {name} --chunks {chunks}: {_remedy(name, maker, chunks)}")
    return maker.of(ranks, microbatches, *([chunks] if maker.has_choice else []))


def _find(name: str) -> _Maker:
    if name not in _MAKERS:
        raise UserError(f"--schedule {name}: want one of {', '.join(NAMES)}{_guess(name)}")
    return _MAKERS[name]


def _guess(name: str) -> str:
    near = get_close_matches(name.lower().replace("_", "-"), NAMES, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def _remedy(name: str, maker: _Maker, chunks: int) -> str:
    """Which chunks this schedule has, and which schedules have so many."""
    least = "at least " if maker.has_choice else ""
    others = " or ".join(other for other, m in _MAKERS.items() if m.takes(chunks))
    return (
        f"{name} has {least}{maker.fewest} chunk{'s' * (maker.fewest > 1)} a rank; choose --chunks "
        f"{maker.fewest}, or --schedule {others}"
    )
