"""A schedule as a CSV file: one line for each rank, one cell for each action; PyTorch's files too.

The text of one cell is read and written in actions.py.
"""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from ...errors import UserError
from .actions import BACKWARD, FORWARD, INPUT, LIKE, WEIGHT, Action, Schedule, Step, parse

# Cells of PyTorch's files that say when FSDP gathers, frees and reduces the shards of a stage
SHARDING = re.compile(r"[0-9]+(UNSHARD|RESHARD|REDUCE_GRAD)")


def loads(text: str, name: str = "") -> Schedule:
    """Read a schedule from a text. It may contain messages or only computing.

    Empty cells (idle slots) are dropped. Lines that start with # are skipped, and so are blank
    lines before, after and next to them. A blank line between two ranks is an error: a rank that
    does nothing is written as one comma. If a stage has both B and W for a micro-batch, its B is
    read as I, which is PyTorch's meaning (torch.distributed.pipelining, `_load_csv`). PyTorch's
    UNSHARD, RESHARD and REDUCE_GRAD are left out: the schedule's `notes` say so. Raises UserError.

    >>> dumps(loads("0F0,,0B0,0W0"))
    '0F0,0I0,0W0'
    """
    place = f"{name}, " if name else ""
    rows, left_out = _rows(text.removeprefix("\ufeff"), place), Counter[str]()
    orders = [list(_renamed(_steps(*row, place, left_out), BACKWARD, INPUT)) for row in rows]
    if not orders:
        raise UserError(f"{place}no rank: want a line a rank, cells joined by commas; {LIKE}")
    notes = [_left_out(left_out)] if left_out else []
    if _counts_from_one(orders[-1]):
        orders[-1] = [s._replace(microbatch=s.microbatch - 1) if s.kind == FORWARD else s
                      for s in orders[-1] if isinstance(s, Action)]  # fmt: skip
        notes.append("the last rank's F are numbered from 1, as PyTorch's 1F1B does by mistake: "
                     "read as from 0")  # fmt: skip
    return Schedule.of(orders, name, notes)


def _left_out(counts: Counter[str]) -> str:
    each = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items()))
    return f"left out: {each}; --zero and --sync gather parameters and sum gradients"


def _counts_from_one(order: list[Step]) -> bool:
    """Whether a rank has one stage with forwards 1, …, m and backwards 0, …, m - 1."""
    if not all(isinstance(step, Action) for step in order):
        return False
    forwards, backwards = (
        sorted(step.microbatch for step in order if isinstance(step, Action) and step.kind in kinds)
        for kinds in ((FORWARD,), (BACKWARD, INPUT))
    )
    m = len(backwards)
    one_stage = len({part.stage for step in order for part in step.parts}) == 1
    return m > 0 and one_stage and backwards == [*range(m)] and forwards == [*range(1, m + 1)]


def _rows(text: str, place: str) -> list[tuple[int, list[str]]]:
    """The line number and the cells of every rank."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    above = blank = 0  # line numbers: the last rank with no comment after it, a blank line below it
    try:
        for row in reader:
            line = reader.line_num
            if row and row[0].lstrip().startswith("#"):
                above = blank = 0
            elif len(row) < 2 and not "".join(row).strip():
                blank = above and line
            elif blank:
                raise UserError(
                    f"{place}line {blank} is blank, between two ranks: leave it out, or write one "
                    "comma for a rank that does nothing"
                )
            else:
                above = line
                rows.append((line, row))
    except csv.Error as error:
        raise UserError(f"{place}line {reader.line_num} is not CSV: {error}") from None
    return rows


def _steps(line: int, row: list[str], place: str, left_out: Counter[str]) -> Iterator[Step]:
    """The steps of a rank; PyTorch's other cells are counted in `left_out`."""
    for n, cell in enumerate(row, 1):
        if found := SHARDING.fullmatch(cell.strip()):
            left_out[found[1]] += 1
        elif cell.strip():
            yield parse(cell, f"{place}line {line}, column {n}: ")


def _renamed(steps: Iterable[Step], kind: str, to: str) -> Iterator[Step]:
    """Rename the actions of `kind` whose stage and micro-batch have a W too; leave overlaps."""
    steps = list(steps)
    alone = [step for step in steps if isinstance(step, Action)]
    split = {(a.stage, a.microbatch) for a in alone if a.kind == WEIGHT}
    for step in steps:
        if isinstance(step, Action) and step.kind == kind:
            yield step._replace(kind=to) if (step.stage, step.microbatch) in split else step
        else:
            yield step


def dumps(schedule: Schedule, pytorch: bool = False) -> str:
    """The canonical text: LF between lines and none at the end, no blank cells.

    With `pytorch`, an I that has a W is written as B, as in PyTorch's newer files.

    >>> dumps(Schedule.of([["0F0", "0I0", "0W0"]]), pytorch=True)
    '0F0,0B0,0W0'
    """
    return "\n".join(_line(order, pytorch) for order in schedule.orders)


def _line(order: Iterable[Step], pytorch: bool) -> str:
    steps = _renamed(order, INPUT, BACKWARD) if pytorch else order
    return ",".join(map(str, steps)) or ","


def load(path: str | PathLike[str]) -> Schedule:
    """Read a schedule from a UTF-8 file; it takes the file's name. Raises UserError."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"schedule {path} is not text: want a CSV file in UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"schedule {path}: {reason}; want a CSV file, a line a rank") from None
    return loads(text, Path(path).name)


def save(schedule: Schedule, path: str | PathLike[str], pytorch: bool = False) -> None:
    """Write a schedule to a file. Raises UserError if the file cannot be written."""
    try:
        text = dumps(schedule, pytorch) + "\n"
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"schedule {path} cannot be written: {error.strerror}") from None
