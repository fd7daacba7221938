"""The list of schedules. To add one: add a file to this folder, and a line to SCHEDULES below.

A file has one function, `(ranks, microbatches) -> Schedule`, or with `chunks` as a third argument.
Its decorator `@named` says its name and how many chunks (stages) a rank may have.
"""

from __future__ import annotations

import os
from difflib import get_close_matches

from ....errors import UserError
from ..actions import Schedule
from ..text import load
from .dualpipev import dualpipev
from .forward_only import forward_only
from .gpipe import gpipe
from .interleaved import interleaved
from .one_f_one_b import one_f_one_b
from .order import Maker
from .zb_h1 import zb_h1
from .zb_h2 import zb_h2
from .zbv import zbv

SCHEDULES: tuple[Maker, ...] = (
    gpipe,
    one_f_one_b,
    interleaved,
    zb_h1,
    zb_h2,
    zbv,
    dualpipev,
)
NAMES = tuple(each.name for each in SCHEDULES)
__all__ = ["NAMES", "SCHEDULES", "find", "forward_only", "make"]


def make(name: str, ranks: int, microbatches: int, chunks: int | None = None) -> Schedule:
    """The schedule of that name, with computing alone; UserError if it cannot have these sizes.

    `chunks` is the number of stages on each rank; None means the fewest that the schedule may have.

    >>> make("interleaved", ranks=4, microbatches=8).stages
    8
    """
    maker = _named(name)
    chunks = maker.fewest_chunks if chunks is None else chunks
    for flag, size in (("pp", ranks), ("microbatches", microbatches), ("chunks", chunks)):
        if size < 1:
            raise UserError(f"--{flag} {size}: want at least 1")
    if not _allows(maker, chunks):
        raise UserError(f"--schedule {name} --chunks {chunks}: {_remedy(maker, chunks)}")
    return maker(ranks, microbatches, *([chunks] if _has_choice(maker) else []))


def find(
    name: str, ranks: int | None, microbatches: int | None, chunks: int | None,
    usual: tuple[int, int], remedy: str,
) -> Schedule:  # fmt: skip
    """The schedule of a name, made for these sizes, or of a CSV file, which must have these sizes.

    A size may be None: for a name it is then the one in `usual` (ranks, micro-batches), for a file
    the file's own. Raises UserError for an unknown name, for sizes that the schedule cannot have,
    and, with `remedy`, for sizes that are not the file's.
    """
    if name in NAMES:
        p, m = (u if n is None else n for n, u in zip((ranks, microbatches), usual))
        return make(name, p, m, chunks)
    if not (name.endswith(".csv") or os.path.exists(name)):
        raise UserError(f"schedule '{name}': want {', '.join(NAMES)}, or a CSV file{_guess(name)}")
    found = load(name)
    most = max(len(found.stages_of(rank)) for rank in range(found.ranks))
    sizes_of_file = {"pp": found.ranks, "microbatches": found.microbatches, "chunks": most}
    for given, (flag, size) in zip((ranks, microbatches, chunks), sizes_of_file.items()):
        if given not in (None, size):
            raise UserError(f"schedule '{name}' is for --{flag} {size}, not {given}: {remedy}")
    return found


def _named(name: str) -> Maker:
    for maker in SCHEDULES:
        if maker.name == name:
            return maker
    raise UserError(f"--schedule {name}: want one of {', '.join(NAMES)}{_guess(name)}")


def _guess(name: str) -> str:
    near = get_close_matches(name.lower().replace("_", "-"), NAMES, n=1, cutoff=0.4)
    return f"; did you mean {near[0]}?" if near else ""


def _allows(maker: Maker, chunks: int) -> bool:
    return maker.fewest_chunks <= chunks <= maker.most_chunks


def _has_choice(maker: Maker) -> bool:
    return maker.fewest_chunks < maker.most_chunks


def _remedy(maker: Maker, chunks: int) -> str:
    """Say how many chunks this schedule has, and which schedules have that many."""
    least, fewest = "at least " if _has_choice(maker) else "", maker.fewest_chunks
    others = " or ".join(other.name for other in SCHEDULES if _allows(other, chunks))
    return (
        f"{maker.name} has {least}{fewest} chunk{'s' * (fewest > 1)} a rank; choose --chunks "
        f"{fewest}, or --schedule {others}"
    )
