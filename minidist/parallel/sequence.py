"""Sequence parallelism (Korthikanti et al. 2022, 4.2.2): activations in parts along the sequence.

Between the tensor-parallel pairs a rank has some tokens of every sample, for norms and dropout.
What is whole on every rank there (norms, biases after the sum, positions) sees this rank's tokens
only: its gradients are parts of a sum, which `sum_partial` completes. To forget that is silent.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..comm import Communicator, all_reduce, shard_bounds
from ..kernels import arrays as xp
from ..kernels.halves import summable
from ..nn import Dropout, Module, Parameter
from ..tensor.random import keep_mask
from ..tensor.tensor import Tensor
from .data.synchronize import unpack
from .layout import parts_of


class Tokens:
    """How the tokens of a sample lie along `dim` of activations; `length` is set at each forward.

    One for all layers of a model, so that no layer has to ask the others how many they have.
    """

    def __init__(self, comm: Communicator, dim: int = 1):
        self.comm, self.dim, self.length = comm, dim, 0

    @property
    def counts(self) -> list[int]:
        """Every rank's tokens."""
        return [b - a for a, b in shard_bounds(self.length, self.comm.size)]

    @property
    def mine(self) -> slice:
        """This rank's."""
        return slice(*shard_bounds(self.length, self.comm.size)[self.comm.rank])


class TokenDropout(Dropout):
    """Dropout of (b, s, h), or of this rank's tokens of it.

    The mask is that of whole samples, of which each rank takes its tokens: no layout drops others.
    """

    def __init__(self, p: float = 0.5, tokens: Tokens | None = None, *, name: str = "dropout"):
        super().__init__(p, name=name)
        self.tokens = tokens

    def forward(self, input: Tensor) -> Tensor:
        if self.tokens is None or not self.training or self.p == 0:
            return super().forward(input)
        b, _, *rest = input.shape
        kept = keep_mask(self.name, (b, self.tokens.length, *rest), 1 - self.p)
        scale = xp.dtype(input.dtype).type(1 / (1 - self.p) if self.p < 1 else 0.0)
        mask = kept[:, self.tokens.mine] * scale
        return input * Tensor.of(xp.at_home_of(input.data, mask))


def partial_parameters(model: Module) -> list[Parameter]:
    """Of a sequence-parallel model, those that are whole on every rank."""
    parts = parts_of(model)
    return [p for name, p in model.named_parameters() if name not in parts]


def sum_partial_early(params: Iterable[Parameter], comm: Communicator) -> None:
    """The same in the midst of backward, one by one: for ZeRO, which takes them from there.

    To be called before whoever takes them registers hooks of their own.
    """
    for p in params:
        p.register_post_accumulate_grad_hook(lambda p: sum_partial([p], comm))


def sum_partial(params: Iterable[Tensor], comm: Communicator) -> None:
    """Add up their gradients over the ranks, in one message."""
    grads = [p.grad.data for p in params if p.grad is not None]
    if not grads or comm.size == 1:
        return
    flat = xp.concatenate([summable(g).reshape(-1) for g in grads])
    all_reduce(comm, flat, algorithm="ordered", out=flat, label="partial gradients")
    unpack(flat, grads)
