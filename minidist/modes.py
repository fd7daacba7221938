"""Whether operations are recorded, and whether they are searched for NaN: modes of this context.

Each simulated rank and each thread has its own. A mode is a `with` block or a decorator.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

# What is true records; a recorder (recompute.py) is moreover told of every node.
recording: ContextVar[Any] = ContextVar("recording", default=True)
anomaly: ContextVar[str] = ContextVar("anomaly", default="off")  # or "where", or "nan"


class Mode:
    """Sets a variable inside a block or a function, and puts back what it was."""

    def __init__(self, variable: ContextVar, value: Any):
        self.variable, self.value = variable, value
        self.before: list[Any] = []

    def __enter__(self) -> Mode:
        self.before.append(self.variable.get())
        self.variable.set(self.value)
        return self

    def __exit__(self, *error: object) -> None:
        self.variable.set(self.before.pop())

    def __call__(self, function: Callable) -> Callable:
        if inspect.isgeneratorfunction(function):
            return self._steps(function)

        @functools.wraps(function)
        def inside(*args: Any, **options: Any) -> Any:
            with Mode(self.variable, self.value):
                return function(*args, **options)

        return inside

    def _steps(self, function: Callable) -> Callable:
        """A generator leaves the mode whenever it yields."""

        @functools.wraps(function)
        def steps(*args: Any, **options: Any) -> Iterator[Any]:
            generator, end = function(*args, **options), object()
            while True:
                with Mode(self.variable, self.value):
                    item = next(generator, end)
                if item is end:
                    return
                yield item

        return steps


class FromHereOn(Mode):
    """Sets its variable when made; as a block or a decorator, it is a Mode all the same."""

    def __init__(self, variable: ContextVar, value: Any):
        super().__init__(variable, value)
        self.before.append(variable.get())
        variable.set(value)

    def __enter__(self) -> FromHereOn:
        self.variable.set(self.value)
        return self

    def __call__(self, function: Callable) -> Callable:
        self.variable.set(self.before.pop())
        return super().__call__(function)


def no_grad(function: Callable | None = None) -> Any:
    """Record nothing inside (a block, or a decorator with or without parentheses)."""
    mode = Mode(recording, False)
    return mode if function is None else mode(function)


def enable_grad(function: Callable | None = None) -> Any:
    """Record again inside a no_grad block, as torch.enable_grad."""
    mode = Mode(recording, recording.get() or True)
    return mode if function is None else mode(function)


def set_grad_enabled(mode: bool) -> Mode:
    """Record or not from here on, or inside the block, as torch.set_grad_enabled."""
    return FromHereOn(recording, (recording.get() or True) if mode else False)


def is_grad_enabled() -> bool:
    return recording.get() is not False


def detect_anomaly(check_nan: bool = True) -> Mode:
    """Inside, the operation that makes the first NaN is an error that names its line of code.

    As torch.autograd.detect_anomaly, but values are searched too, not gradients alone. With
    check_nan=False, an error in a VJP tells where its operation was called, and no more.
    """
    return Mode(anomaly, "nan" if check_nan else "where")


def set_detect_anomaly(mode: bool, check_nan: bool = True) -> Mode:
    """detect_anomaly from here on, or inside the block."""
    return FromHereOn(anomaly, ("nan" if check_nan else "where") if mode else "off")
