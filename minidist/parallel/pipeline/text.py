"""The text of a schedule: one line a rank, its cells joined by commas, PyTorch's CSV included."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from os import PathLike
from pathlib import Path

from ...errors import UserError
from .actions import (
    BACKWARD,
    FORWARD,
    INPUT,
    KINDS,
    OVERLAP,
    WEIGHT,
    Action,
    Overlap,
    Schedule,
    Step,
)

DIGITS = 6  # a stage or micro-batch of more is a mistake, and would be counted up to for minutes

# [0-9], not \d: int("٣") is 3, and what is read would not be what is written
_ACTION = re.compile(r"(?P<stage>[0-9]+)(?P<kind>[A-Z][A-Z_]*)(?P<microbatch>[0-9]*)")
_OVERLAP = re.compile(r"\((?P<forward>[^();]*);(?P<backward>[^();]*)\)\s*(?P<name>\w+)")
_LIKE = f"a cell looks like 0F3 (stage 0, F, micro-batch 3), 1SEND_F0 or (0F7;7B3){OVERLAP}"


def parse(cell: str, where: str = "") -> Step:
    """The action that a cell says; blanks around it do not count.

    `where` begins the message of the UserError that anything else raises.

    >>> parse(" 0F3 ")
    Action(stage=0, kind='F', microbatch=3)
    """
    text = cell.strip()
    pair = _OVERLAP.fullmatch(text)
    return _overlap(pair, where) if pair else _action(text, where)


def _action(text: str, where: str) -> Action:
    found = _ACTION.fullmatch(text)
    if not found:
        raise _error(where, text, _LIKE + _separator(text))
    if found["kind"] not in KINDS:
        known = ", ".join(KINDS)
        raise _error(where, text, f"{found['kind']} is not understood here, of {known}")
    if not found["microbatch"]:
        raise _error(where, text, f"the micro-batch is missing: {_LIKE}")
    numbers = (_number(found[part], where, text) for part in ("stage", "microbatch"))
    return Action(next(numbers), found["kind"], next(numbers))


def _overlap(found: re.Match[str], where: str) -> Overlap:
    if found["name"] != OVERLAP:
        raise _error(where, found[0], f"{found['name']} is not understood here: {_LIKE}")
    pair = Overlap(*(_action(found[part].strip(), where) for part in ("forward", "backward")))
    if (pair.forward.kind, pair.backward.kind) != (FORWARD, BACKWARD):
        raise _error(where, found[0], f"what overlaps is an F, then a B: {_LIKE}")
    return pair


def _number(digits: str, where: str, text: str) -> int:
    if len(digits) > DIGITS:
        raise _error(where, text, f"want a number of at most {DIGITS} digits")
    if digits != str(int(digits)):
        raise _error(where, text, f"want {int(digits)} for {digits}, without leading zeros")
    return int(digits)


def _separator(text: str) -> str:
    return "; cells are joined by commas" if re.search(r"[;\t ]", text) else ""


def _error(where: str, text: str, remedy: str) -> UserError:
    shown = text if len(text) <= 40 else text[:40] + "…"
    return UserError(f"{where}cell {shown!r}: {remedy}")


def loads(text: str, name: str = "") -> Schedule:
    """The schedule of a text: computing alone, or with messages.

    Empty cells (idle slots) are dropped; lines that begin with # and blank lines before, after
    and next to them are skipped, but a blank line between two ranks is an error: a rank that does
    nothing is one comma. A B beside a W of the same stage and micro-batch is read as I, as PyTorch
    means it (torch.distributed.pipelining, `_load_csv`). Raises UserError.

    >>> dumps(loads("0F0,,0B0,0W0"))
    '0F0,0I0,0W0'
    """
    place = f"{name}, " if name else ""
    rows = _rows(text.removeprefix("\ufeff"), place)
    orders = [_renamed(_steps(row, line, place), BACKWARD, INPUT) for line, row in rows]
    if not orders:
        raise UserError(f"{place}no rank: want a line a rank, cells joined by commas; {_LIKE}")
    return Schedule.of(orders, name)


def _rows(text: str, place: str) -> list[tuple[int, list[str]]]:
    """(Line, cells) of every rank."""
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    rows: list[tuple[int, list[str]]] = []
    above = blank = 0  # the line of a rank that no comment follows, and of a blank after that
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
    """With another kind for every action that has a W beside it, unless it overlaps."""
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

    `pytorch` writes B for an I whose W is there, as PyTorch's newer files do.

    >>> dumps(Schedule.of([["0F0", "0I0", "0W0"]]), pytorch=True)
    '0F0,0B0,0W0'
    """
    return "\n".join(_line(order, pytorch) for order in schedule.orders)


def _line(order: Iterable[Step], pytorch: bool) -> str:
    steps = _renamed(order, INPUT, BACKWARD) if pytorch else order
    return ",".join(map(str, steps)) or ","


def load(path: str | PathLike[str]) -> Schedule:
    """The schedule of a UTF-8 file, named after it. Raises UserError, for a missing file too."""
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except UnicodeDecodeError:
        raise UserError(f"schedule {path} is not text: want a CSV file in UTF-8") from None
    except (OSError, ValueError) as error:  # ValueError: a path with a NUL
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"schedule {path}: {reason}; want a CSV file, a line a rank") from None
    return loads(text, Path(path).name)


def save(schedule: Schedule, path: str | PathLike[str], pytorch: bool = False) -> None:
    """Write `dumps` and a LF. Raises UserError where that cannot be."""
    try:
        text = dumps(schedule, pytorch) + "\n"
        Path(path).write_text(text, encoding="utf-8", newline="\n")
    except OSError as error:
        raise UserError(f"schedule {path} cannot be written: {error.strerror}") from None
