"""Tensor-parallel linear layers and embedding (Shoeybi et al. 2019, section 3).

How it works:
1. ColumnParallelLinear holds some rows of W, so it computes some output units (columns of y).
2. Each rank goes on with its units alone: an activation, or attention by heads.
3. RowParallelLinear holds the matching columns of W. Each rank's product is a partial sum of the
   full result, and one all-reduce adds them up: one all-reduce a pair in forward.
4. In backward ColumnParallelLinear adds up the partial gradients of its input: one all-reduce a
   pair again. These are the functions f and g of the paper.
5. With `tokens` (sequence parallelism) the activations between the pairs are sharded along the
   sequence, and each all-reduce becomes an all-gather before it and a reduce-scatter after it.

Shapes: b samples, s tokens, i input and o output features, n rows of a flattened input, t ranks.
"""

from __future__ import annotations

import math

from ...autograd.tape import Joint
from ...comm import Communicator, iall_gather, iall_reduce, ireduce_scatter
from ...comm.comm_self import CommSelf
from ...kernels import arrays as xp
from ...kernels import linear as kernel
from ...nn import Embedding, Linear, Parameter
from ...nn import functional as F
from ...ops import communication, where
from ...ops.op import differentiable
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import ParallelLayer, shard_indices, shard_parameter
from ..sequence import Tokens


@differentiable(autocast="lower_precision_fp", native_on_gpu=True)
def _linear(x, weight, bias, comm, tokens, need_x):
    """x Wᵀ + b for this rank's rows of W: x (b, s, i) or (b, s/t, i) -> y (b, s, o/t).

    With `tokens` only this rank's tokens are kept for backward, which gathers the others again.
    """
    full = x if tokens is None else _finished(_start_gather(x, comm, tokens), tokens)  # (b, s, i)
    y, shape = kernel.forward(_rows(full), weight, bias), full.shape  # (n, o/t)

    def vjp(g):
        g, dx = g.reshape(-1, g.shape[-1]), None  # (n, o/t)
        again = None if tokens is None else _start_gather(x, comm, tokens)
        if need_x:  # the ranks' dx are summed while the weight's gradient is computed
            dx = _start_sum(kernel.backward_input(g, weight).reshape(shape), comm, tokens)
        rows = _rows(x if again is None else _finished(again, tokens))  # (n, i)
        dw = kernel.backward_weight(g, rows)  # (o/t, i)
        db = None if bias is None else kernel.backward_bias(g)  # (o/t,)
        return [None if dx is None else _finished(dx, tokens), dw, db]

    def split(g, now):
        g = g.reshape(-1, g.shape[-1])  # (n, o/t)
        rest = lambda: _weight_backward(g, x, bias is not None, comm, tokens)
        if not need_x:
            return [None, None, None], rest
        dx = _start_sum(kernel.backward_input(g, weight).reshape(shape), comm, tokens)
        return [_finished(dx, tokens), None, None], rest

    joint = Joint(vjp)
    joint.split = split
    return y.reshape(*shape[:-1], len(weight)), joint  # (b, s, o/t)


def _weight_backward(g, x, has_bias, comm, tokens):
    """The second part of a split backward, which gathers the tokens for itself."""
    rows = _rows(x if tokens is None else _finished(_start_gather(x, comm, tokens), tokens))
    db = kernel.backward_bias(g) if has_bias else None
    return [None, kernel.backward_weight(g, rows), db]


def _rows(x):
    return xp.ascontiguousarray(x).reshape(math.prod(x.shape[:-1]), x.shape[-1])  # (n, i)


def _start_gather(x, comm, tokens):
    """A request for all tokens, in front: (b, s/t, i) -> (s, b, i)."""
    turned = xp.ascontiguousarray(xp.moveaxis(x, tokens.dim, 0))  # (s/t, b, i)
    return iall_gather(comm, turned, tokens.counts)


def _start_sum(dx, comm, tokens):
    """A request for the sum of the ranks' dx: (b, s, i), or this rank's tokens of it in front."""
    if tokens is None:
        return iall_reduce(comm, dx, out=dx)
    return ireduce_scatter(comm, xp.ascontiguousarray(xp.moveaxis(dx, tokens.dim, 0)))


def _finished(request, tokens):
    """The result of a request, with the tokens back in their dimension."""
    return request.wait() if tokens is None else xp.moveaxis(request.wait(), 0, tokens.dim)


def column_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, comm: Communicator, tokens: Tokens | None = None
) -> Tensor:
    """x (…, i), replicated or this rank's tokens -> (…, o/t), this rank's units."""
    return _linear(x, weight, bias, comm, tokens, x.requires_grad)


class ColumnParallelLinear(ParallelLayer):
    """This rank's outputs of Linear(in_features, out_features), with nn.Linear's initial weights.

    A rank gets whole `unit`s of each of `blocks` equal blocks of the outputs, or those of `index`.
    Shapes: weight (o/t, i), bias (o/t,).
    """

    shown = ("in_features", "out_features", "bias?")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        comm: Communicator | None = None, unit: int = 1, blocks: int = 1,
        index: xp.ndarray | None = None, tokens: Tokens | None = None, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        self.in_features, self.out_features = in_features, out_features
        full = Linear(in_features, out_features, bias, dtype=dtype)
        index = shard_indices(out_features, self.comm, unit, blocks) if index is None else index
        self.weight: Parameter = shard_parameter(self, "weight", full.weight, 0, index, self.comm)
        self.bias: Parameter | None = shard_parameter(self, "bias", full.bias, 0, index, self.comm)

    def forward(self, input: Tensor) -> Tensor:
        return column_linear(input, self.weight, self.bias, self.comm, self.tokens)  # (b, s, o/t)


class RowParallelLinear(ParallelLayer):
    """Linear(in_features, out_features) of whose inputs this rank has the units of its shard.

    The bias is replicated, and added once: after the sum. Shapes: weight (o, i/t), bias (o,).
    """

    shown = ("in_features", "out_features", "bias?")

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, *,
        comm: Communicator | None = None, unit: int = 1, tokens: Tokens | None = None,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        self.in_features, self.out_features = in_features, out_features
        full = Linear(in_features, out_features, bias, dtype=dtype)
        index = shard_indices(in_features, self.comm, unit)
        self.weight: Parameter = shard_parameter(self, "weight", full.weight, 1, index, self.comm)
        self.bias = full.bias

    def forward(self, input: Tensor) -> Tensor:
        if self.comm.size == 1 and self.tokens is None:  # the bias within the product
            return F.linear(input, self.weight, self.bias)
        partial = F.linear(input, self.weight)  # (b, s, i/t) -> (b, s, o), a partial sum
        y = reduce_partial(partial, self.comm, self.tokens)  # (b, s, o) or (b, s/t, o)
        # under autocast y has 16 bits, and a float32 bias would make the sum float32
        return y if self.bias is None else y + self.bias.to(y.dtype)


def reduce_partial(x: Tensor, comm: Communicator, tokens: Tokens | None) -> Tensor:
    """The sum of the ranks' x, replicated; with `tokens`, this rank's tokens of the sum."""
    if tokens is None:
        return communication.reduce(x, comm)
    return communication.reduce_scatter(x, comm, tokens.dim)


class VocabParallelEmbedding(ParallelLayer):
    """Embedding(num_embeddings, embedding_dim) of which this rank has some rows.

    The rank that has a token's row contributes its vector, and the others zeros: the sum is exact.
    Shapes: V words of the vocabulary, h numbers in a vector; weight (V/t, h).
    """

    shown = ("*num_embeddings", "*embedding_dim")

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, comm: Communicator | None = None,
        tokens: Tokens | None = None, dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        self.comm, self.tokens = comm or CommSelf(), tokens
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        index = shard_indices(num_embeddings, self.comm)
        self.first, self.last = int(index[0]), int(index[-1]) + 1
        full = Embedding(num_embeddings, embedding_dim, dtype=dtype)
        self.weight: Parameter = shard_parameter(self, "weight", full.weight, 0, index, self.comm)

    def forward(self, input: Tensor) -> Tensor:
        if self.comm.size == 1 and self.tokens is None:
            return F.embedding(input, self.weight)
        self._check(input.data)
        is_local = (input.data >= self.first) & (input.data < self.last)  # (b, s)
        row = Tensor.of(xp.where(is_local, input.data - self.first, 0))
        # Write zeros for other ranks' words: multiplying by 0 would leave inf or NaN.
        partial = where(Tensor.of(is_local[..., None]), F.embedding(row, self.weight), 0)
        return reduce_partial(partial, self.comm, self.tokens)  # (b, s, h) or (b, s/t, h)

    def _check(self, index: xp.ndarray) -> None:
        # A token that no rank has would silently be zeros on all of them.
        if xp.outside(index, self.num_embeddings):
            raise IndexError(
                f"embedding: indices from {index.min()} to {index.max()} into a table of "
                f"{self.num_embeddings} rows"
            )
