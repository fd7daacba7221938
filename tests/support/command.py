"""The `minidist` command, run in the process of a test."""

import sys
from collections.abc import Callable
from typing import Any

from minidist import cli


def in_process(monkeypatch: Any, captured: Any, *first: str) -> Callable[..., tuple[int, str, str]]:
    """A function that runs `minidist *first *args` and returns (exit code, stdout, stderr).

    `captured` is pytest's capsys or capfd.
    """

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["minidist", *first, *map(str, args)])
        code = 0
        try:
            cli.main()
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        return (code, *captured.readouterr())

    return run
