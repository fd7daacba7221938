"""Right: a GPT trained on the GPU has the losses that it has on the CPU."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .checks import Entry, check
from .machine import Machine


class Sizes(NamedTuple):
    layers: int
    hidden: int
    heads: int
    positions: int
    vocab: int
    batch: int
    steps: int


LARGE, TINY = Sizes(2, 64, 4, 48, 120, 4, 20), Sizes(1, 8, 2, 6, 10, 1, 2)
BOUNDS = {None: 1e-3, "float16": 2e-2, "bfloat16": 6e-2}  # nats, of losses from about 5


def run(machine: Machine) -> Iterator[Entry]:
    sizes = TINY if machine.tiny else LARGE
    from minidist.kernels.dispatch import using

    with using("numba"):
        wanted = losses(sizes, "cpu", None)
    for dtype, bound in BOUNDS.items():
        name = f"losses of {sizes.steps} steps in {f'autocast {dtype}' if dtype else 'float32'}"
        yield check(name, bound, _losses_apart, wanted, sizes, machine, dtype)
        if dtype is not None:
            yield check(f"a product in autocast {dtype}", 0, _bytes_off, machine, dtype)
    yield check("the loss falls", 0, float, wanted[-1] >= wanted[0])
    yield check("a sentence, word by word", 0, _sentences_apart, machine, sizes)
    yield check("losses with dropout", 1e-3, _with_dropout, machine, sizes)


def _losses_apart(
    wanted: list[float], sizes: Sizes, machine: Machine, dtype: str | None, dropout: float = 0.0
) -> float:
    found = losses(sizes, machine.device, dtype, dropout)
    return float(np.abs(np.subtract(found, wanted)).max())


def _bytes_off(machine: Machine, dtype: str) -> float:
    """By how many bytes its numbers are off 2."""
    import minidist as md
    from minidist.nn import functional as F

    x, w = (md.tensor(np.ones((16, 16), np.float32), device=machine.device) for _ in range(2))
    with md.autocast(machine.device, dtype):
        y = F.linear(x, w)
    return abs(y.data.itemsize - 2)


def losses(sizes: Sizes, device: str, dtype: str | None, dropout: float = 0.0) -> list[float]:
    """The loss of each step of training on the same few sentences."""
    import minidist as md
    from minidist.optim import AdamW

    md.manual_seed(0)
    model = _model(sizes, device, dropout)
    optimiser, found = AdamW(model.parameters(), lr=3e-3), []
    given = tokens(sizes.batch, sizes.positions, sizes.vocab)
    x, y = (md.tensor(t, device=device) for t in given)
    for _ in range(sizes.steps):
        with contextlib.nullcontext() if dtype is None else md.autocast(device, dtype):
            loss = model.loss(x, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(loss.item())
    return found


def _model(sizes: Sizes, device: str, dropout: float = 0.0) -> Any:
    from minidist.models.gpt import GPT, GPTConfig

    return GPT(GPTConfig(*sizes[:5], dropout)).to(device)


def tokens(batch: int, positions: int, vocab: int) -> tuple[np.ndarray, np.ndarray]:
    """Random ones, and those that follow them."""
    whole = np.random.default_rng(0).integers(0, vocab, (batch, positions + 1))
    return whole[:, :-1].copy(), whole[:, 1:].copy()


def _sentences_apart(machine: Machine, sizes: Sizes) -> float:
    """Tokens in which greedy continuations differ."""
    count = 1 if machine.tiny else 20
    prompt, one, other = np.arange(3), _model(sizes, "cpu"), _model(sizes, machine.device)
    wanted, found = (model.generate(prompt, count, 0, 0, 0) for model in (one, other))
    return float((wanted != found).sum())


def _with_dropout(machine: Machine, sizes: Sizes) -> float:
    """The masks follow from the seed, so they drop the same numbers."""
    from minidist.kernels.dispatch import using

    with using("numba"):
        wanted = losses(sizes, "cpu", None, 0.2)
    return _losses_apart(wanted, sizes, machine, None, 0.2)
