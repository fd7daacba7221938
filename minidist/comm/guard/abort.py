"""An error on one rank ends all ranks, or all ranks agree on it and stop: none is left waiting."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import traceback
from collections.abc import Iterator
from types import TracebackType

from ..collectives.all_gather import all_gather_bytes
from ..communicator import Communicator


class AgreedExit(SystemExit):
    """An exit that every rank makes, so that none has to be aborted."""


def agree(comm: Communicator, error: str | None) -> str | None:
    """Every rank passes its error or None; all get the lowest rank's error, or None.

    The text starts with that rank's number, unless all ranks have the same error.
    """
    texts = all_gather_bytes(comm, b"" if error is None else b"!" + error.encode())
    first = next((rank for rank, text in enumerate(texts) if text), None)
    if first is None:
        return None
    text = texts[first][1:].decode()
    return text if len(set(texts)) == 1 else f"rank {first}: {text}"


@contextlib.contextmanager
def abort_on_error(comm: Communicator) -> Iterator[None]:
    """Around a rank's whole program: an exception or a failing exit on one rank ends every rank.

    With simulated ranks or a single one the error just passes through.
    """
    try:
        yield
    except BaseException as error:
        failed = exit_code(error) != 0 and not isinstance(error, AgreedExit)
        if failed and comm.native is not None and comm.size > 1:
            report_and_abort(comm, error)
        raise


def install_excepthook(comm: Communicator) -> None:
    """Make an uncaught exception end every rank; Python alone would leave the others waiting.

    sys.excepthook is the process's only hook for uncaught exceptions, so it is replaced.
    """

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report_and_abort(comm, error)

    sys.excepthook = hook


def report_and_abort(comm: Communicator, error: BaseException) -> None:
    """Print the error, each line with this rank's number, and end every rank."""
    name = f"rank {comm.rank} of {comm.size}"
    # Unflushed output would be lost: abort ends the process without Python's clean-up.
    sys.stdout.flush()
    sys.stderr.write(textwrap.indent(_report(error), f"{name} | "))
    sys.stderr.flush()
    comm.abort(exit_code(error))


def exit_code(error: BaseException) -> int:
    """The exit status for the shell: 0 for a good exit, 130 for Ctrl-C, 1 for a failure."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _report(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"exits with {error.code}\n"
    return "".join(traceback.format_exception(error))
