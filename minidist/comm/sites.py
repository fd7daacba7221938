"""Where in the user's program a communication call stands."""

from __future__ import annotations

import os
import sys
from types import FrameType

HERE = os.path.dirname(__file__) + os.sep


def user_line(frame: FrameType | None) -> tuple[str, str]:
    """The communication function that was called, and where the caller stands."""
    entry = ""
    while frame is not None and frame.f_code.co_filename.startswith(HERE):
        entry, frame = frame.f_code.co_name, frame.f_back
    if frame is None:
        return entry, ""
    code = frame.f_code
    return entry, f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"


def here() -> str:
    """The line of the user's that has led here."""
    return user_line(sys._getframe(1))[1]
