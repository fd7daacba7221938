"""Counter-based randomness: every number is a function of its name and place, never of the layout.

A generator is keyed by (seed, names...) and numbers are drawn by *global* index, so a rank that
holds a part of a tensor or of a batch draws exactly the numbers that one process would (Salmon et
al. 2011, "Parallel random numbers: as easy as 1, 2, 3": Philox).
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import operator
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import numpy as np


def philox_key(*key: int | str) -> int:
    """128 bits for a key of numbers and names, such as (seed, "wte.weight")."""
    # NumPy's integers are written otherwise than Python's, and must mean the same
    plain = tuple(k if isinstance(k, str) else operator.index(k) for k in key)
    return int.from_bytes(hashlib.blake2b(repr(plain).encode(), digest_size=16).digest(), "little")


def generator(*key: int | str, counter: int = 0) -> np.random.Generator:
    """A Philox generator for a key of numbers and names."""
    return np.random.Generator(np.random.Philox(key=philox_key(*key), counter=counter))


BLOCK = 8  # float32 numbers that Philox makes of one count


@dataclass(frozen=True)
class Place:
    """Where a forward pass stands: its seed, its step, the global number of its first sample."""

    seed: int
    step: int
    first_sample: int


_place: ContextVar[Place | None] = ContextVar("place", default=None)
_seed: ContextVar[int] = ContextVar("seed", default=0)
_calls: ContextVar[int] = ContextVar("calls", default=0)


def manual_seed(seed: int) -> None:
    """Restart the default stream, as torch.manual_seed (the numbers are our own)."""
    _seed.set(seed)
    _calls.set(0)


def default_generator() -> np.random.Generator:
    """The next generator of the default stream: for weights and noise that name no place."""
    return generator(*_next_key())


def _next_key() -> tuple[int, str, int]:
    number = _calls.get()
    _calls.set(number + 1)
    return _seed.get(), "default", number


State = tuple["Place | None", int, int]


def get_state() -> State:
    """Where randomness stands: the place, and the default stream's seed and position."""
    return _place.get(), _seed.get(), _calls.get()


def _set_state(state: State) -> None:
    place, seed, number = state
    _place.set(place), _seed.set(seed), _calls.set(number)


@contextlib.contextmanager
def replayed(state: State) -> Iterator[None]:
    """Inside, the same numbers again as after get_state() gave `state`."""
    before = get_state()
    _set_state(state)
    try:
        yield
    finally:
        _set_state(before)


@contextlib.contextmanager
def at(seed: int, step: int, first_sample: int) -> Iterator[None]:
    """Inside, dropout masks belong to these global samples of this step, whoever computes them."""
    token = _place.set(Place(seed, step, first_sample))
    try:
        yield
    finally:
        _place.reset(token)


def stream(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """What every dropout mask follows from: Philox's key, its first count, the number of samples.

    Inside `at` the key is (seed, step, name), and the count starts at the global number of the
    first sample of shape (samples, ...), so each sample has counts of its own. Outside `at` the key
    is the default stream's next, and the whole shape is one sample.

    Two functions draw the mask from these three numbers, with the same bits: kernels/dropout.py
    (F.dropout) tile by tile while it multiplies, and keep_mask as one array.
    """
    place = _place.get()
    if place is None:
        return philox_key(*_next_key()), 0, 1
    first = place.first_sample * -(-math.prod(shape[1:]) // BLOCK)
    return philox_key(place.seed, place.step, name), first, shape[0]


def keep_mask(name: str, shape: tuple[int, ...], keep: float) -> np.ndarray:
    """F.dropout's mask as one array, True where it keeps: for dropout inside another operation.

    Attention, recurrent layers and sequence parallelism use it; the last takes some tokens of it.
    """
    key, first, samples = stream(name, shape)
    size = math.prod(shape) // max(samples, 1)
    draws = np.random.Generator(np.random.Philox(key=key, counter=first)).random(
        (samples, -(-size // BLOCK) * BLOCK), np.float32
    )
    return (draws[:, :size] < keep).reshape(shape)
