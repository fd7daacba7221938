"""How all ranks end a run early together: after a signal or a failure to write a file.

1. `Signals` notes the first signal and does nothing else, so the step continues.
2. In every step the ranks sum a flag together with the loss (loop.py): how many of them want to
   stop. So all ranks learn of it after the same step, whichever rank got the signal.
3. If the sum is not 0, all ranks call `Stop.agreed`, which tells them the reason. After a signal
   they save a checkpoint and end. If a rank cannot write, all of them raise its error.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

import numpy as np

from ..comm import Communicator, agree, all_reduce, world_from_env
from ..errors import UserError
from .files import writing

# Open MPI's mpirun passes SIGUSR1 on, but kills its ranks 0.4 s after the other two signals.
NOTED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
AGAIN = 0.5  # seconds: timeout(1) sends its signal to the process and to its group, at once
SIGPIPE = 13  # Windows does not have it
CLOSED_PIPE = 128 + SIGPIPE  # the exit code, as shells give it


class Signals:
    """Notes the signals of this process; a second one ends it at once. Use as a context manager.

    All simulated ranks of the process share it.
    """

    def __init__(self) -> None:
        self.number = 0  # the number of the first signal
        self.since = 0.0
        self.nothing_to_save = False  # once the steps are over, the first signal ends it
        self.before: dict[int, Any] = {}

    def __enter__(self) -> Signals:
        if threading.current_thread() is threading.main_thread():  # only it may set a handler
            self.before = {n: signal.signal(n, self._caught) for n in NOTED}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler or signal.SIG_DFL)

    @property
    def exit_code(self) -> int:
        """The exit code as in shells: 130 after Ctrl-C, 143 after SIGTERM; 0 without a signal."""
        return 128 + self.number if self.number else 0

    def _caught(self, number: int, frame: FrameType | None) -> None:
        if not self.number:
            self.number, self.since = number, time.monotonic()
            if self.nothing_to_save:
                raise SystemExit(self.exit_code)
            _tell(f"{_name(number)}: finishing this step and saving a checkpoint; "
                  "a second signal stops the run at once")  # fmt: skip
        elif time.monotonic() - self.since > AGAIN:
            raise SystemExit(self.exit_code)


class Stop:
    """One rank's wish to end the run early, and the agreement of all ranks on it."""

    def __init__(self, comm: Communicator, signals: Signals):
        self.comm, self.signals = comm, signals
        self.problem: str | None = None  # why this rank cannot go on

    def is_wanted(self) -> bool:
        return bool(self.signals.number or self.problem)

    def agreed(self) -> int:
        """The signal that ends the run, or 0; UserError if a rank cannot go on. All ranks call it.

        Every rank notes the signal, so that all of them exit with the same code.
        """
        problem = agree(self.comm, self.problem)
        if problem is not None:
            raise UserError(problem)
        mine = np.array([self.signals.number])
        number = int(all_reduce(self.comm, mine, op="max", algorithm="ring")[0])
        self.signals.number = self.signals.number or number
        return number

    def steps_are_over(self) -> int:
        """As `agreed`; a signal that comes from now on ends this process at once."""
        number = self.agreed()
        self.signals.nothing_to_save = True
        return number

    @contextlib.contextmanager
    def noting(self, name: object) -> Iterator[None]:
        """Note a failure of writing a file; the run ends when all ranks have learnt of it."""
        try:
            with writing(name):
                yield
        except UserError as error:
            self.problem = self.problem or str(error)

    def lose_output(self, error: OSError) -> None:
        """End the run, as a signal does, when the output can no longer be written."""
        if not isinstance(error, BrokenPipeError):
            _tell(f"the output cannot be written: {error.strerror}")
        self.signals.number = self.signals.number or SIGPIPE


def drop_output() -> None:
    """Redirect stdout to nowhere; otherwise Python would fail to write again when it exits."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _name(number: int) -> str:
    return "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name


def _tell(text: str) -> None:
    """One line on stderr by rank 0. Not by print(): a signal may come while that holds its lock."""
    if world_from_env()[0] == 0:
        with contextlib.suppress(OSError):
            os.write(2, f"\nminidist: {text}\n".encode())
