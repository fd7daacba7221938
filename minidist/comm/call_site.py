"""The line of the user's program that led to a communication call, for reports and comparisons."""

from __future__ import annotations

import os
import sys
from types import FrameType

COMM_FOLDER = os.path.dirname(__file__) + os.sep
DECORATED = "<locals>"  # in the name of a function that a decorator made


def call_of(frame: FrameType | None) -> tuple[str, str]:
    """(function, place): the communication function that the user called, and where.

    Walks outwards from `frame` to the first frame that is not in this package. Frames of decorators
    (`by_host.<locals>.staged`) do not count: the user called the function inside them.
    """
    function = ""
    while frame is not None and frame.f_code.co_filename.startswith(COMM_FOLDER):
        if DECORATED not in frame.f_code.co_qualname:
            function = frame.f_code.co_name
        frame = frame.f_back
    if frame is None:
        return function, ""
    code = frame.f_code
    return function, f"{code.co_filename}:{frame.f_lineno} in {code.co_name}"


def call_site() -> str:
    """`train.py:31 in step`: the place in the user's program from which this was reached."""
    return call_of(sys._getframe(1))[1]
