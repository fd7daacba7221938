"""The arguments of the `minidist` command as they are typed: what is mistyped is one line.

tyro parses them (cli.py). It would say each mistake in a box of several lines, so names are looked
up before that, and what tyro prints about a wrong value is put into one line.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import fields
from itertools import dropwhile, takewhile
from typing import Any

from .errors import UserError, did_you_mean

BEFORE = ("--help", "--version")  # what may stand in the place of a command
Commands = Mapping[str, type | None]  # the options of each: a dataclass, if it has any


def require(condition: bool, message: str) -> None:
    """UserError with this message unless the condition holds."""
    if not condition:
        raise UserError(message)


def require_text(arguments: list[str]) -> None:
    """Refuse arguments that the shell's encoding cannot decode (they hold surrogates)."""
    encoding = sys.getfilesystemencoding()
    for argument in arguments:
        require(
            not any("\ud800" <= c <= "\udfff" for c in argument),
            f"argument '{argument}' is not text in {encoding}, this shell's encoding: rename the "
            "file, type the text in that encoding, or start with PYTHONUTF8=1",
        )


def value_of(arguments: list[str], flag: str) -> str | None:
    """The value after the last `--flag` or `--flag=`, looked up before the flags are parsed."""
    for argument, after in reversed([*zip(arguments, [*arguments[1:], None])]):
        if argument.startswith(f"{flag}="):
            return argument.split("=", 1)[1]
        if argument == flag and after is not None:
            return after
    return None


def _flags(options: type | None) -> dict[str, bool]:
    """Every flag of a command, and whether the flag takes a value."""
    named = [f for f in fields(options) if "Positional" not in str(f.type)] if options else []
    switches = {f.name for f in named if f.default is False}
    known = {f.name: f.name not in switches for f in named}
    known |= {f"no-{name}": False for name in switches} | {"help": False}
    return {f"--{name.replace('_', '-')}": takes for name, takes in known.items()}


def check_names(arguments: list[str], commands: Commands) -> None:
    """Raise a UserError that suggests the nearest name for a mistyped command or flag."""
    command = arguments[0] if arguments else "--help"
    if command in (*BEFORE, "-h"):
        return
    every = f"the commands are {', '.join(commands)}"
    if command not in commands:
        if command.startswith("-"):
            for near in difflib.get_close_matches(command, BEFORE, 1, cutoff=0.8):
                raise UserError(f"minidist has no flag '{command}': did you mean '{near}'?")
            raise UserError(f"{command}: give a command first; {every}")
        raise UserError(f"no command '{command}': {did_you_mean(command, commands, every)}")
    flags, is_value = _flags(commands[command]), False
    for argument in arguments[1:]:
        flag = argument.split("=")[0].replace("_", "-")
        if not is_value and flag.startswith("-") and not _is_number(flag):
            require(flag in flags or flag == "-h",
                     f"{command} has no flag '{argument.split('=')[0]}': "
                     + did_you_mean(f"--{flag.lstrip('-')}", flags,
                                    f"'minidist {command} --help' lists its flags"))  # fmt: skip
        is_value = flags.get(flag, False) and "=" not in argument


def split(arguments: list[str]) -> tuple[list[str], tuple[str, ...]]:
    """The arguments of minidist, and those of an example, which come after --."""
    if arguments[:1] != ["examples"] or "--" not in arguments:
        return arguments, ()
    at = arguments.index("--")
    return arguments[:at], tuple(arguments[at + 1 :])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def in_one_line(arguments: list[str], parse: Callable[[], Any]) -> Any:
    """Parse the arguments; turn tyro's box about a mistake into a UserError of one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return parse()
    except SystemExit as leaving:
        rows = [row.strip(" │") for row in box.getvalue().splitlines()[1:]]  # without the title
        is_rule = lambda row: not row.strip("─-╰╯")
        mistake = " ".join(takewhile(lambda row: not is_rule(row), dropwhile(is_rule, rows)))
        require(not mistake, f"{_plain(mistake).removesuffix('.')}: "
                 f"'{' '.join(['minidist', *arguments[:1]])} --help' says more")  # fmt: skip
        raise leaving from None


def _plain(mistake: str) -> str:
    """Python's words for a value that is not a number, in plain words."""
    for words, kind in (
        (r"invalid literal for int\(\) with base 10", "whole number"),
        ("could not convert string to float", "number"),
    ):
        mistake = re.sub(
            rf"Error parsing (--\S+): {words}: (.*)", rf"\1 \2: want a {kind}", mistake
        )
    return mistake
