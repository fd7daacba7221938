"""The error of a user's input: one line that names the value and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something given was wrong; the command line prints it alone and exits with code 2."""


def did_you_mean(name: str, known: Iterable[str], otherwise: str) -> str:
    """A question that names the nearest of the known names, or what to say if none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{near[0]}'?" if near else otherwise
