"""Tensor parallelism (Shoeybi et al. 2019, 3): a layer's weights are shared out, its result is not.

Columns, then rows: a ColumnParallelLinear makes this rank's part of the units, what follows works
on those units alone (an activation, attention by heads), and a RowParallelLinear sums the ranks'
parts into the whole. Forward costs one all-reduce a pair, backward another: f and g of the paper.

With `tokens` (sequence parallelism) a rank has some tokens of the activations between the pairs:
the all-reduces become all-gather and reduce-scatter.
"""

from __future__ import annotations

import math

from ...autograd.tape import Joint
from ...comm import Communicator, iall_gather, iall_reduce, ireduce_scatter
from ...comm.comm_self import CommSelf
from ...kernels import arrays as xp
from ...kernels import linear as kernel
from ...nn import Embedding, Linear, Module, Parameter
from ...nn import functional as F
from ...ops import communication
from ...ops.op import differentiable
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import Part, shares
from ..sequence import Tokens


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _linear(x, weight, bias, comm, tokens, need_x):
    """x Wᵀ + b for this rank's rows of W; x whole on every rank, or this rank's tokens of it.

    Of tokens only this rank's are kept for backward, which gathers them again.
    """
    whole = x if tokens is None else _joined(_gathering(x, comm, tokens), tokens)
    y, shape = kernel.forward(_rows(whole), weight, bias), whole.shape

    def vjp(g):
        g, dx = g.reshape(-1, g.shape[-1]), None
        again = None if tokens is None else _gathering(x, comm, tokens)
        if need_x:  # it is being summed while the weight's gradient is computed
            dx = _summing(kernel.backward_input(g, weight).reshape(shape), comm, tokens)
        rows = _rows(x if again is None else _joined(again, tokens))
        dw = kernel.backward_weight(g, rows)
        db = None if bias is None else kernel.backward_bias(g)
        return [None if dx is None else _joined(dx, tokens), dw, db]

    def split(g, now):
        g = g.reshape(-1, g.shape[-1])
        rest = lambda: _of_weights(g, x, bias is not None, comm, tokens)
        if not need_x:
            return [None, None, None], rest
        dx = _summing(kernel.backward_input(g, weight).reshape(shape), comm, tokens)
        return [_joined(dx, tokens), None, None], rest

    joint = Joint(vjp)
    joint.split = split
    return y.reshape(*shape[:-1], len(weight)), joint


def _of_weights(g, x, has_bias, comm, tokens):
    """The second half on its own: tokens are gathered for it then, and not kept until then."""
    rows = _rows(x if tokens is None else _joined(_gathering(x, comm, tokens), tokens))
    db = kernel.backward_bias(g) if has_bias else None
    return [None, kernel.backward_weight(g, rows), db]


def _rows(x):
    return xp.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])


def _gathering(x, comm, tokens):
    """All tokens, on their way."""
    turned = xp.ascontiguousarray(xp.moveaxis(x, tokens.dim, 0))
    return iall_gather(comm, turned, tokens.counts)


def _summing(dx, comm, tokens):
    """The ranks' dx added, on their way: the whole to every rank, or its tokens."""
    if tokens is None:
        return iall_reduce(comm, dx, out=dx)
    return ireduce_scatter(comm, xp.ascontiguousarray(xp.moveaxis(dx, tokens.dim, 0)))


def _joined(request, tokens):
    """What a request brings, with the tokens back in their dimension."""
    return request.wait() if tokens is None else xp.moveaxis(request.wait(), 0, tokens.dim)


def column_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, comm: Communicator, tokens: Tokens | None = None
) -> Tensor:
    """x (…, in), whole on every rank or this rank's tokens -> (…, this rank's units)."""
    return _linear(x, weight, bias, comm, tokens, x.requires_grad)


class ColumnParallelLinear(Module):
    """This rank's outputs of Linear(in_features, out_features), as nn.Linear's first values.

    Whole `unit`s of each of `blocks` equal blocks of the outputs go to one rank, or what `index`
    says.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        comm: Communicator | None = None, unit: int = 1, blocks: int = 1,
        index: xp.ndarray | None = None, tokens: Tokens | None = None, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        whole = Linear(in_features, out_features, bias, dtype=dtype)
        index = shares(out_features, self.comm, unit, blocks) if index is None else index
        self.parts = {"weight": Part((out_features, in_features), 0, index, self.comm)}
        self.weight = Parameter(Tensor.of(self.parts["weight"].of(whole.weight.data)))
        self.bias = None
        if whole.bias is not None:
            self.parts["bias"] = Part((out_features,), 0, index, self.comm)
            self.bias = Parameter(Tensor.of(self.parts["bias"].of(whole.bias.data)))

    def forward(self, input: Tensor) -> Tensor:
        return column_linear(input, self.weight, self.bias, self.comm, self.tokens)


class RowParallelLinear(Module):
    """Linear(in_features, out_features) of which this rank has the inputs of its units.

    The bias is whole on every rank, and added once: after the sum.
    """

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        comm: Communicator | None = None, unit: int = 1, tokens: Tokens | None = None,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        whole = Linear(in_features, out_features, bias, dtype=dtype)
        index = shares(in_features, self.comm, unit)
        self.parts = {"weight": Part((out_features, in_features), 1, index, self.comm)}
        self.weight = Parameter(Tensor.of(self.parts["weight"].of(whole.weight.data)))
        self.bias = whole.bias

    def forward(self, input: Tensor) -> Tensor:
        if self.comm.size == 1 and self.tokens is None:  # the bias within the product
            return F.linear(input, self.weight, self.bias)
        y = joined_sum(F.linear(input, self.weight), self.comm, self.tokens)
        return y if self.bias is None else y + self.bias


def joined_sum(x: Tensor, comm: Communicator, tokens: Tokens | None) -> Tensor:
    """The ranks' x added: whole on every rank, or this rank's tokens of the sum."""
    if tokens is None:
        return communication.reduce(x, comm)
    return communication.reduce_scatter(x, comm, tokens.dim)


class VocabParallelEmbedding(Module):
    """Embedding(num_embeddings, embedding_dim) of which this rank has some rows.

    A token's vector comes from the rank that has it; the others add zeros, so the sum is exact.
    """

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, comm: Communicator | None = None,
        tokens: Tokens | None = None, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        index = shares(num_embeddings, self.comm)
        self.first, self.last = int(index[0]), int(index[-1]) + 1
        self.parts = {"weight": Part((num_embeddings, embedding_dim), 0, index, self.comm)}
        whole = Embedding(num_embeddings, embedding_dim, dtype=dtype)
        self.weight = Parameter(Tensor.of(self.parts["weight"].of(whole.weight.data)))

    def forward(self, input: Tensor) -> Tensor:
        if self.comm.size == 1 and self.tokens is None:
            return F.embedding(input, self.weight)
        self._check(input.data)
        here = (input.data >= self.first) & (input.data < self.last)
        mine = Tensor.of(xp.where(here, input.data - self.first, 0))
        keep = Tensor.of(here[..., None].astype(self.weight.dtype))
        y = F.embedding(mine, self.weight) * keep
        return joined_sum(y, self.comm, self.tokens)

    def _check(self, index: xp.ndarray) -> None:
        # A token that no rank has would be zeros on all, silently.
        if xp.outside(index, self.num_embeddings):
            raise IndexError(
                f"embedding: indices from {index.min()} to {index.max()} into a table of "
                f"{self.num_embeddings} rows"
            )
