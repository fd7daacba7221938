"""Modes of a context: are operations recorded, searched for NaN, computed in 16 bits?

All modes stand in one context variable, so an operation reads them with one lookup. Each simulated
rank and each thread has its own. A mode is a `with` block or a decorator.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, NamedTuple


class Modes(NamedTuple):
    """What an operation must know of the context in which it is called."""

    # False records nothing, True records. A recorder (see checkpoint.py) records too, and its
    # add(node) is called with every new node.
    recording: Any = True
    anomaly: str = "off"  # "where": note the calling lines; "nan": also search for NaN
    autocast: Any = None  # (device type, dtype) inside an autocast block
    complex_numbers: bool = False  # for gradcheck's complex step alone
    inference: bool = False  # new tensors are marked: see inference_mode


_modes: ContextVar[Modes] = ContextVar("modes", default=Modes())  # noqa: B039 (a tuple)
current = _modes.get


class Mode:
    """Sets modes inside a block or a function, and restores what they were."""

    def __init__(self, **changes: Any):
        self.changes = changes
        self.entered: list[tuple[Modes, Modes]] = []  # the modes before, and those set

    def __enter__(self) -> Mode:
        self._set()
        return self

    def _set(self) -> None:
        before = _modes.get()
        now = before._replace(**self.changes)
        _modes.set(now)
        self.entered.append((before, now))

    def __exit__(self, *error: object) -> None:
        before, now = self.entered.pop()
        modes = _modes.get()
        if modes is not now:  # another mode was set inside and has not ended: it stays
            before = modes._replace(**{name: getattr(before, name) for name in self.changes})
        _modes.set(before)

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):
            return self._steps(function)

        @functools.wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            with Mode(**self.changes):
                return function(*args, **options)

        return inside

    def _steps(self, function: Callable) -> Callable:
        """The generator leaves the mode whenever it yields; send() and throw() work as usual."""

        @functools.wraps(function)
        def steps(*args: Any, **options: Any) -> Generator:
            generator = function(*args, **options)
            go_on, value = generator.send, None
            while True:
                try:
                    with Mode(**self.changes):
                        item = go_on(value)
                except StopIteration as end:
                    return end.value
                try:
                    go_on, value = generator.send, (yield item)
                except GeneratorExit:
                    with Mode(**self.changes):
                        generator.close()
                    raise
                except BaseException as error:
                    go_on, value = generator.throw, error

        return steps


class ModeFromNow(Mode):
    """Sets its modes when it is made; as a block or a decorator it is a Mode all the same."""

    def __init__(self, **changes: Any):
        super().__init__(**changes)
        self._set()

    def __enter__(self) -> ModeFromNow:
        _modes.set(_modes.get()._replace(**self.changes))
        return self

    def __call__(self, function: Callable) -> Callable:
        self.__exit__()
        return super().__call__(function)


def no_grad(function: Callable | None = None) -> Any:
    """Record nothing inside (a block, or a decorator with or without parentheses)."""
    mode = Mode(recording=False)
    return mode if function is None else mode(function)


def enable_grad(function: Callable | None = None) -> Any:
    """Record again inside a no_grad block, as torch.enable_grad."""
    mode = Mode(recording=_recording_again())
    return mode if function is None else mode(function)


def _recording_again() -> Any:
    """The value of `recording` after enable_grad, which does not end inference mode."""
    return False if current().inference else current().recording or True


def set_grad_enabled(mode: bool) -> Mode:
    """Record or not from now on, or inside the block, as torch.set_grad_enabled."""
    return ModeFromNow(recording=_recording_again() if mode else False)


used_inference = False  # has this process ever been in inference mode?


def inference_mode(mode: Any = True) -> Any:
    """As no_grad; tensors created inside stay out of autograd also later: clone() one to use it.

    Use it in a `with` statement or as a decorator, with or without parentheses. With False, the
    block is in the ordinary mode and records gradients. It is no faster than no_grad; it helps to
    find places where results of an evaluation are used in training.
    """
    global used_inference
    if callable(mode):
        return inference_mode()(mode)
    used_inference = used_inference or bool(mode)
    recording = False if mode else current().recording or True
    return Mode(recording=recording, inference=bool(mode))


def is_inference_mode_enabled() -> bool:
    """Whether tensors that are created now stay out of autograd."""
    return current().inference


def is_grad_enabled() -> bool:
    """Whether operations are recorded."""
    return current().recording is not False


def detect_anomaly(check_nan: bool = True) -> Mode:
    """Inside, the operation that makes the first NaN is an error that names its line of code.

    As torch.autograd.detect_anomaly, but values are searched too, not only gradients. With
    check_nan=False nothing is searched; an error in a VJP still names the line that called the
    operation.
    """
    return Mode(anomaly="nan" if check_nan else "where")


def set_detect_anomaly(mode: bool, check_nan: bool = True) -> Mode:
    """detect_anomaly from now on, or inside the block."""
    return ModeFromNow(anomaly=("nan" if check_nan else "where") if mode else "off")
