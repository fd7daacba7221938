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
from typing import NamedTuple

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


class Place(NamedTuple):
    """Where a forward pass stands: its seed, its step, the global number of its first sample."""

    seed: int
    step: int
    first_sample: int


class State(NamedTuple):
    """All that random numbers depend on besides names: one value, replaced and never changed."""

    place: Place | None = None  # inside `at`
    seed: int = 0  # of the default stream
    calls: int = 0  # generators that the default stream has given


# Each simulated rank and each thread draws its own numbers, so the state belongs to the context.
_state: ContextVar[State] = ContextVar("random state", default=State())  # noqa: B039 (a tuple)
get_state = _state.get


def manual_seed(seed: int) -> None:
    """Restart the default stream, as torch.manual_seed (the numbers are our own)."""
    _state.set(_state.get()._replace(seed=_whole(seed), calls=0))


def _whole(seed: int | float) -> int:
    if isinstance(seed, float) and not seed.is_integer():
        raise ValueError(f"manual_seed: {seed}: want a whole number")
    try:
        return int(seed) if isinstance(seed, float) else operator.index(seed)
    except TypeError:
        raise TypeError(f"manual_seed: {seed!r}: want a whole number") from None


def default_generator() -> np.random.Generator:
    """The next generator of the default stream: for weights and noise that name no place."""
    return generator(*_next_key())


def _next_key() -> tuple[int, str, int]:
    state = _state.get()
    _state.set(state._replace(calls=state.calls + 1))
    return state.seed, "default", state.calls


@contextlib.contextmanager
def replayed(state: State) -> Iterator[None]:
    """Inside, the same numbers again as after get_state() gave `state`."""
    before = _state.get()
    _state.set(state)
    try:
        yield
    finally:
        _state.set(before)


@contextlib.contextmanager
def at(seed: int, step: int, first_sample: int) -> Iterator[None]:
    """Inside, dropout masks belong to these global samples of this step, whoever computes them."""
    before = _state.get().place
    _state.set(_state.get()._replace(place=Place(seed, step, first_sample)))
    try:
        yield
    finally:
        _state.set(_state.get()._replace(place=before))


def stream(name: str, shape: tuple[int, ...]) -> tuple[int, int, int]:
    """Philox's key, its first count, and the number of samples: what a dropout mask follows from.

    Inside `at` the key is (seed, step, name). The first count belongs to the global number of the
    first sample of shape (samples, ...), so each sample has counts of its own. Outside `at` the key
    is the default stream's next, and the whole shape is one sample.
    """
    place = _state.get().place
    if place is None:
        return philox_key(*_next_key()), 0, 1
    first = place.first_sample * -(-math.prod(shape[1:]) // BLOCK)
    return philox_key(place.seed, place.step, name), first, shape[0]
