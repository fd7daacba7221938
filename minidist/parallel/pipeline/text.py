"""A schedule as a CSV file: one line for each rank, one cell for each action; PyTorch's files too.

The text of one cell is read and written in actions.py.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from ...errors import UserError
from .actions import BACKWARD, INPUT, LIKE, WEIGHT, Action, Schedule, Step, parse


def loads(text: str, name: str = "") -> Schedule:
    """Read a schedule from a text. It may contain messages or only computing.

    Empty cells (idle slots) are dropped. Lines that begin with # are skipped, and so are blank
    lines before, after and next to them. A blank line between two ranks is an error: a rank that
    does nothing is written as one comma. If a stage has both B and W for a micro-batch, its B is
    read as I, which is PyTorch's meaning (torch.distributed.pipelining, `_load_csv`). Raises
    UserError.

    >>> dumps(loads("0F0,,0B0,0W0"))
    '0F0,0I0,0W0'
    """
    place = f"{name}, " if name else ""
    rows = _rows(text.removeprefix("\ufeff"), place)
    orders = [_renamed(_steps(row, line, place), BACKWARD, INPUT) for line, row in rows]
    if not orders:
        raise UserError(f"{place}no rank: want a line a rank, cells joined by commas; {LIKE}")
    return Schedule.of(orders, name)


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


def _steps(row: list[str], line: int, place: str) -> list[Step]:
    cells = enumerate(row, 1)
    return [parse(c, f"{place}line {line}, column {n}: ") for n, c in cells if c.strip()]


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
