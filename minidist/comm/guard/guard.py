"""No rank is left waiting: an error on one ends them all, or all learn of it and stop together."""

from __future__ import annotations

import contextlib
import sys
import textwrap
import traceback
from collections.abc import Iterator
from types import TracebackType

from ..communicator import Communicator
from ..texts import share


class AgreedExit(SystemExit):
    """An exit that every rank makes, so that none has to be aborted."""


def agree(comm: Communicator, error: str | None) -> str | None:
    """Every rank brings its error or None; all get the lowest rank's error, or None.

    It starts with that rank's number, unless all ranks have the same error.
    """
    texts = share(comm, b"" if error is None else b"!" + error.encode())
    first = next((rank for rank, text in enumerate(texts) if text), None)
    if first is None:
        return None
    text = texts[first][1:].decode()
    return text if len(set(texts)) == 1 else f"rank {first}: {text}"


@contextlib.contextmanager
def abort_on_error(comm: Communicator) -> Iterator[None]:
    """Around a rank's whole program: an exception or a failing exit on it ends every rank.

    Simulated ranks and a single one just let it pass.
    """
    try:
        yield
    except BaseException as error:
        failed = exit_code(error) != 0 and not isinstance(error, AgreedExit)
        if failed and comm.native is not None and comm.size > 1:
            report_and_abort(comm, error)
        raise


def install_excepthook(comm: Communicator) -> None:
    """Let an uncaught exception end every rank, where Python alone would let the others wait."""

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        report_and_abort(comm, error)

    sys.excepthook = hook


def report_and_abort(comm: Communicator, error: BaseException) -> None:
    """Print what happened, each line with this rank's number, and end every rank."""
    name = f"rank {comm.rank} of {comm.size}"
    # What is not flushed is lost: abort ends the process without Python's clean-up.
    sys.stdout.flush()
    sys.stderr.write(textwrap.indent(_report(error), f"{name} | "))
    sys.stderr.flush()
    comm.abort(exit_code(error))


def exit_code(error: BaseException) -> int:
    """What the shell would see: 0 for a good exit, 130 for Ctrl-C, 1 for a failure."""
    if isinstance(error, KeyboardInterrupt):
        return 130
    if not isinstance(error, SystemExit):
        return 1
    return error.code if isinstance(error.code, int) else int(error.code is not None)


def _report(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"exits with {error.code}\n"
    return "".join(traceback.format_exception(error))
