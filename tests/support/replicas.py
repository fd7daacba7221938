"""What tests of data parallelism share: small models, batches, and their training on any ranks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import numpy as np

from minidist import nn, optim, random
from minidist.comm import Communicator, all_reduce
from minidist.models.gpt import GPT, GPTConfig
from minidist.nn import functional as F
from minidist.parallel.data.sum_gradients import (
    Bucketed,
    Naive,
    Overlapped,
    Synchronizer,
)
from minidist.parallel.data.sync_batch_norm import convert_sync_batchnorm
from minidist.tensor.tensor import Tensor

WAYS: dict[str, Callable[..., Synchronizer]] = {
    "naive": lambda params, comm, _, algorithm="ordered": Naive(params, comm, algorithm),
    "bucketed": lambda params, comm, nbytes, algorithm="ordered": Bucketed(
        params, comm, nbytes, algorithm
    ),
    "overlapped": lambda params, comm, nbytes, algorithm="ordered": Overlapped(
        params, comm, nbytes, algorithm
    ),
}


class Tangle(nn.Module):
    """A layer used twice, a frozen one, one that some ranks use, one that none does, two dtypes."""

    def __init__(self, dtype: str = "float32"):
        random.manual_seed(0)
        self.first, self.tied = nn.Linear(3, 4), nn.Linear(4, 4)
        self.sometimes, self.never = nn.Linear(4, 4), nn.Linear(2, 2)
        self.frozen = nn.Linear(4, 4).requires_grad_(False)
        self.to(dtype)
        self.last = nn.Linear(4, 2).double()

    def forward(self, x: Tensor, use: bool) -> Tensor:
        h = self.tied(F.gelu(self.tied(self.first(x))))
        h = h + self.sometimes(h) if use else h
        return self.last(self.frozen(h).double())


@dataclass
class Case:
    """A model in float64, its sum of losses, and (steps, rows, …) of inputs and targets."""

    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor], Tensor]
    draw: Callable[[np.random.Generator, tuple[int, int]], tuple[np.ndarray, np.ndarray]]
    idle: bool  # whether a rank without rows does nothing; else it computes on none


def _gpt() -> nn.Module:
    return GPT(GPTConfig(layers=2, hidden=8, heads=2, positions=5, vocab=11), seed=1)


def _cnn() -> nn.Module:
    random.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=False), nn.BatchNorm2d(3), nn.ReLU(), nn.Flatten(),
        nn.Linear(27, 4),
    )  # fmt: skip


class _Last(nn.Module):
    def __init__(self) -> None:
        random.manual_seed(1)
        self.lstm, self.out = nn.LSTM(3, 5, num_layers=2, batch_first=True), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.lstm(x)[0][:, -1])


def _entropy(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(model(x), y, reduction="sum")


def _classes(*shape: int) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    return lambda rng, rows: (rng.standard_normal((*rows, *shape)), rng.integers(0, 4, rows))


CASES = {
    "gpt": Case(
        _gpt,
        lambda model, x, y: model.loss(x, y, reduction="sum"),
        lambda rng, rows: (rng.integers(0, 11, (*rows, 5)), rng.integers(0, 11, (*rows, 5))),
        idle=True,
    ),
    "cnn": Case(_cnn, _entropy, _classes(1, 5, 5), idle=False),
    "lstm": Case(_Last, _entropy, _classes(4, 3), idle=False),
}


def slices(counts: Sequence[int]) -> list[slice]:
    """Each rank's rows."""
    return [slice(*edges) for edges in pairwise(accumulate(counts, initial=0))]


def trained(
    comm: Communicator, name: str, counts: Sequence[int], make: Callable[..., Synchronizer],
    bucket_bytes: int = 300, dtype: str = "float64", algorithm: str = "ordered", steps: int = 3,
) -> dict[str, np.ndarray]:  # fmt: skip
    """Losses and gradients of every step, parameters and buffers after the last, by name."""
    case, rows = CASES[name], slices(counts)[comm.rank]
    found: dict[str, np.ndarray] = {}
    model = convert_sync_batchnorm(case.build().to(dtype), comm)
    for tensor in (*model.parameters(), *model.buffers()) if comm.rank else ():
        tensor.data[...] += 1  # each rank begins with rank 0's weights and buffers all the same
    sync = make(model, comm, bucket_bytes, algorithm)
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    inputs, targets = case.draw(np.random.default_rng(0), (steps, sum(counts)))
    inputs = inputs.astype(dtype) if inputs.dtype.kind == "f" else inputs
    for step in range(steps):
        loss = 0.0
        if not case.idle or counts[comm.rank]:
            x, y = Tensor(inputs[step, rows]), Tensor(targets[step, rows])
            total = case.loss(model, x, y) / targets[step].size
            total.backward()
            loss = total.item()
        sync.sum_gradients()
        found[f"{step} loss"] = all_reduce(comm, np.array([loss]), algorithm="ordered")
        found |= {f"{step} {k}": p.grad.data.copy() for k, p in model.named_parameters()}
        optimizer.step()
        optimizer.zero_grad()
    sync.remove()
    return found | {name: array.copy() for name, array in model.state_dict().items()}


def excess(one: dict[str, np.ndarray], many: dict[str, np.ndarray]) -> float:
    """The largest difference of two trainings, in 1e-10 of the largest number of its array."""
    assert one.keys() == many.keys()
    return max(
        np.abs(many[k] - v).max() / max(np.abs(v).max(), 1e-300) / 1e-10 for k, v in one.items()
    )


def bits(found: dict[str, np.ndarray]) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in found.items()}
