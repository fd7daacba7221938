"""Sequence parallelism (Korthikanti et al. 2022, section 4.2.2): activations sharded by tokens.

How it works:
1. Between the tensor-parallel pairs of linear layers a rank has some tokens of every sample. Norms
   and dropout work on these tokens alone, so their activations are stored once and not t times.
2. `Tokens` says which tokens. The linear layers all-gather tokens and reduce-scatter sums by it.
3. Parameters that are replicated (norms, biases after the sum, positions) see this rank's tokens
   only. Their gradients are partial sums, and `sum_partial` adds them up over the ranks. A program
   that forgets it raises no error, and trains another model.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..comm import Communicator, all_reduce, shard_bounds
from ..kernels import arrays as xp
from ..kernels.half_precision import summable
from ..nn import Dropout, Module, Parameter
from ..ops.dropout import keep_mask
from ..tensor.tensor import Tensor
from .buckets import unpack
from .layout import shards_of


class Tokens:
    """How the tokens of a sample are sharded along `dim` of activations.

    All layers of a model share one object, so that no layer has to ask the others how many tokens
    they have. The model sets `length`, the tokens of all ranks, at each forward.
    """

    def __init__(self, comm: Communicator, dim: int = 1):
        self.comm, self.dim, self.length = comm, dim, 0

    @property
    def counts(self) -> list[int]:
        """The number of tokens of every rank."""
        return [b - a for a, b in shard_bounds(self.length, self.comm.size)]

    @property
    def local(self) -> slice:
        """This rank's tokens."""
        return slice(*shard_bounds(self.length, self.comm.size)[self.comm.rank])


class SequenceParallelDropout(Dropout):
    """nn.Dropout for activations (b, s/t, h) that are this rank's tokens of (b, s, h).

    Without `tokens` it is nn.Dropout, whose mask kernels/dropout.py draws. With `tokens` the same
    mask of all tokens is drawn by keep_mask, and this rank's tokens of it are used. Both draw from
    the same key and count (tensor/random.py: stream): so every layout drops the same units.
    """

    def __init__(self, p: float = 0.5, tokens: Tokens | None = None, *, name: str = "dropout"):
        super().__init__(p, name=name)
        self.tokens = tokens

    def forward(self, input: Tensor) -> Tensor:
        if self.tokens is None or not self.training or self.p == 0:
            return super().forward(input)
        b, _, *rest = input.shape  # (b, s/t, h)
        kept = keep_mask(self.name, (b, self.tokens.length, *rest), 1 - self.p)  # (b, s, h)
        scale = xp.dtype(input.dtype).type(1 / (1 - self.p) if self.p < 1 else 0.0)
        mask = kept[:, self.tokens.local] * scale  # (b, s/t, h)
        return input * Tensor.of(xp.at_home_of(input.data, mask))


def partial_parameters(model: Module) -> list[Parameter]:
    """The replicated parameters of a sequence-parallel model: their gradients are partial sums."""
    shards = shards_of(model)
    return [p for name, p in model.named_parameters() if name not in shards]


def sum_partial(params: Iterable[Tensor], comm: Communicator) -> None:
    """Add up the parameters' partial gradients over the ranks, in one message."""
    grads = [p.grad.data for p in params if p.grad is not None]
    if not grads or comm.size == 1:
        return
    flat = xp.concatenate([summable(g).reshape(-1) for g in grads])
    all_reduce(comm, flat, algorithm="ordered", out=flat, label="partial gradients")
    unpack(flat, grads)


def sum_partial_early(params: Iterable[Parameter], comm: Communicator) -> None:
    """The same during backward, one by one, as each gradient is complete.

    ZeRO and Overlapped send gradients from hooks during backward. Call this before they register
    theirs: hooks run in the order of registration.
    """
    for p in params:
        p.register_post_accumulate_grad_hook(lambda p: sum_partial([p], comm))
