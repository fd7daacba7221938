"""Generator: a stream of random numbers beside the default stream, as torch.Generator."""

from __future__ import annotations

import operator
import secrets
from typing import Any

import numpy as np

from ..kernels import arrays as xp
from . import random
from .device import device as place
from .tensor import Tensor

SEEDS = range(-(1 << 63), 1 << 64)  # PyTorch's


class Generator:
    """A stream of random numbers for the argument `generator=` of sampling functions.

    Each call takes the next numbers. After manual_seed(s) they equal the numbers of the default
    stream after md.manual_seed(s). Numbers are drawn on the host, whatever the device.
    """

    def __init__(self, device: Any = "cpu"):
        self.device = place(device)
        self._seed = self._calls = 0

    def manual_seed(self, seed: int) -> Generator:
        """Restart from a seed; returns the generator."""
        try:
            number = operator.index(seed)
        except TypeError:
            raise RuntimeError(f"manual_seed: {seed!r}: want an integer") from None
        if isinstance(seed, Tensor):
            raise RuntimeError(f"manual_seed: a tensor: want an integer, {number}")
        if number not in SEEDS:
            raise ValueError(f"manual_seed: {seed}: want {SEEDS[0]} to {SEEDS[-1]}")
        self._seed, self._calls = number % (1 << 64), 0
        return self

    def seed(self) -> int:
        """Restart from a seed that the operating system draws; returns the seed."""
        return self.manual_seed(secrets.randbits(63)).initial_seed()

    def initial_seed(self) -> int:
        """The seed in use; a negative one counts from 2**64."""
        return self._seed

    def get_state(self) -> Tensor:
        """The seed and the position, as bytes: after set_state() the same numbers follow again."""
        return Tensor(np.array([self._seed, self._calls], "<u8").view(np.uint8))

    def set_state(self, new_state: Tensor) -> None:
        """Return to the position where get_state() was called, on this generator or another."""
        if not isinstance(new_state, Tensor) or new_state.dtype != xp.uint8:
            raise TypeError("set_state: want a tensor of uint8, which get_state() gives")
        if new_state.shape != (16,):
            raise RuntimeError(f"set_state: shape {new_state.shape}: want 16 bytes, as get_state()")
        self._seed, self._calls = new_state.cpu().numpy().view("<u8").tolist()

    def _next(self) -> np.random.Generator:
        self._calls += 1
        return random.generator(self._seed, "default", self._calls - 1)


def numbers_of(generator: Generator | None) -> np.random.Generator:
    """The source of a sampling function: the given generator, or else the default stream."""
    if generator is None:
        return random.default_generator()
    if not isinstance(generator, Generator):
        raise TypeError(f"generator: {generator!r}: want an md.Generator, or None")
    return generator._next()
