"""A GPT that is small and divides by nothing, its gradients in any layout, and how far two lie."""

from __future__ import annotations

import numpy as np

from minidist import random
from minidist.models.gpt import GPT, GPTConfig
from minidist.parallel import sequence
from minidist.parallel.layout import shards_of
from minidist.tensor.tensor import Tensor

CONFIG = GPTConfig(layers=2, hidden=12, heads=4, positions=7, vocab=13, dropout=0.3)
RNG = np.random.default_rng(0)
TOKENS, TARGETS = RNG.integers(0, 13, (5, 7)), RNG.integers(0, 13, (5, 7))
TARGETS[0] = 12  # the last word, which a vocabulary cut short would not have
BOUND = 1e-12


def built(comm=None, sp=False, config=CONFIG) -> GPT:
    """The model in float64; biases are not 0, so that one that is added twice is seen."""
    model = GPT(config, seed=1, tp=comm, sequence_parallel=sp).double()
    model.reset_parameters(1)
    for name, p in model.named_parameters():
        if name.endswith(".bias"):
            p.data[...] = 0.1
    return model


def whole_gradients(model: GPT) -> dict[str, np.ndarray]:
    parts = shards_of(model)
    grads = {name: p.grad.data.copy() for name, p in model.named_parameters()}
    return {name: parts[name].gather(g) if name in parts else g for name, g in grads.items()}


def computed(comm=None, sp=False, config=CONFIG) -> tuple[GPT, float]:
    """A model with the gradients of the mean loss over TOKENS, and that loss."""
    model = built(comm, sp, config)
    with random.at(0, 0, 0):
        loss = model.loss(Tensor(TOKENS), Tensor(TARGETS))
    loss.backward()
    if sp:
        sequence.sum_partial(sequence.partial_parameters(model), comm)
    return model, loss.item()


def outcome(comm=None, sp=False, config=CONFIG) -> dict[str, np.ndarray]:
    """The loss and the whole gradients, by name."""
    model, loss = computed(comm, sp, config)
    return {"loss": np.array(loss), **whole_gradients(model)}


def far(ours: dict[str, np.ndarray], theirs: dict[str, np.ndarray]) -> float:
    """The largest difference of an entry, relative to the largest entry of its array."""
    assert ours.keys() == theirs.keys()
    assert all(ours[name].shape == wanted.shape for name, wanted in theirs.items())
    return max(
        np.abs(ours[name] - wanted).max() / (np.abs(wanted).max() + 1e-3)
        for name, wanted in theirs.items()
    )


ALONE = outcome()
