"""The error of a user's input: one line that names the value and the remedy."""

from __future__ import annotations

import difflib
import unicodedata
from collections.abc import Iterable


class UserError(ValueError):
    """Something given was wrong; the command line prints it alone and exits with code 2."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """A question that suggests the nearest known name, or the text `otherwise` if none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{near[0]}'?" if near else otherwise


UNSEEN = {"Cc", "Cs", "Zl", "Zp"}  # control characters, undecodable bytes, ends of lines


def visible(text: object, longest: int | None = None, keep: str = "") -> str:
    """A foreign text, such as a file name, made safe to show on one line.

    Control characters and undecodable bytes are escaped as in Python, except the characters of
    `keep`. The middle of a text of more than `longest` characters is left out.

    >>> visible("a\\n\\x1b[2J.txt")
    'a\\\\n\\\\x1b[2J.txt'
    """
    shown = "".join(c if c in keep else _escaped(c) for c in str(text))
    if longest is None or len(shown) <= longest:
        return shown
    half = (longest - 1) // 2
    return f"{shown[:half]}…{shown[-half:]}"


def _escaped(character: str) -> str:
    if unicodedata.category(character) not in UNSEEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
