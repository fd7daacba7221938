"""A decoder-only transformer (GPT-2: pre-norm, learned positions, tied embedding)."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .. import nn
from ..autograd.modes import is_grad_enabled, no_grad
from ..comm import Communicator, shard_range
from ..comm.comm_self import CommSelf
from ..kernels import arrays as xp
from ..nn import Embedding, LayerNorm, Parameter
from ..nn import functional as F
from ..ops import communication
from ..parallel.layout import shards_of
from ..parallel.sequence import SequenceParallelDropout, Tokens
from ..parallel.tensor.cross_entropy import vocab_parallel_cross_entropy
from ..parallel.tensor.linear import (
    ColumnParallelLinear,
    RowParallelLinear,
    VocabParallelEmbedding,
    column_linear,
)
from ..tensor import random
from ..tensor.tensor import Tensor

LARGE_VOCABULARY = 8192  # logits of so many take more memory than a layer's activations


@dataclass(frozen=True)
class GPTConfig:
    """Sizes of a GPT: L layers, h hidden, a heads, s positions, V vocabulary."""

    layers: int
    hidden: int
    heads: int
    positions: int
    vocab: int
    dropout: float = 0.0  # on the embedding and on both residual branches

    def __post_init__(self) -> None:
        for name in ("layers", "hidden", "heads", "positions", "vocab"):
            if getattr(self, name) < 1:
                raise ValueError(f"GPT: {name} = {getattr(self, name)}: want at least 1")
        if self.hidden % self.heads:
            raise ValueError(
                f"GPT: hidden {self.hidden} does not divide into {self.heads} heads: "
                f"choose a multiple of {self.heads}"
            )


@dataclass(frozen=True)
class Shares:
    """What a rank has: heads of attention, units of the MLP, words of the vocabulary, tokens.

    `ways`: tensor-parallel ranks; with `sequence_parallel` its tokens are its own, else all s.
    """

    heads: int
    units: int
    words: int
    tokens: int
    ways: int = 1
    sequence_parallel: bool = False


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, c: GPTConfig, comm: Communicator | None = None, tokens: Tokens | None = None
    ):
        rows: dict[str, Any] = {"comm": comm, "tokens": tokens}
        head = c.hidden // c.heads
        self.ln_1 = LayerNorm(c.hidden)
        self.c_attn = ColumnParallelLinear(c.hidden, 3 * c.hidden, **rows, unit=head, blocks=3)
        self.c_proj = RowParallelLinear(c.hidden, c.hidden, **rows, unit=head)
        self.drop_1 = SequenceParallelDropout(c.dropout, tokens)
        self.ln_2 = LayerNorm(c.hidden)
        self.c_fc = ColumnParallelLinear(c.hidden, 4 * c.hidden, **rows)
        self.mlp_proj = RowParallelLinear(4 * c.hidden, c.hidden, **rows)
        self.drop_2 = SequenceParallelDropout(c.dropout, tokens)
        self.heads = len(self.c_attn.weight) // (3 * head)  # this rank's

    def forward(self, x: Tensor) -> Tensor:
        qkv = self.c_attn(self.ln_1(x))  # (b, s, 3h), of h and of 4h this rank's heads and units
        heads = F.packed_attention(qkv, self.heads, is_causal=True)  # (b, s, h)
        x = x + self.drop_1(self.c_proj(heads))
        wide = F.gelu(self.c_fc(self.ln_2(x)), "tanh")  # (b, s, 4h)
        return x + self.drop_2(self.mlp_proj(wide))


class GPT(nn.Module):
    """Token numbers (b, s) -> logits (b, s, V).

    Initial weights (normal of deviation 0.02·sqrt(768/h), which is GPT-2's at its own width;
    residual projections divided by sqrt(2L)) depend on the seed and the parameter's name alone.

    `tp` are the ranks that share out heads, units and vocabulary; with sequence_parallel also the
    tokens between them. `layers` are those that a pipeline's rank has: with the first comes the
    embedding, with the last the norm and the head. Every layout has the same names, starts from the
    same weights and drops the same units.
    """

    def __init__(
        self, config: GPTConfig, seed: int = 0, tp: Communicator | None = None,
        sequence_parallel: bool = False, layers: Iterable[int] | None = None,
    ):  # fmt: skip
        self.config = config
        self.tp = tp or CommSelf()
        self.tokens = Tokens(self.tp) if sequence_parallel else None
        self.layers = tuple(range(config.layers) if layers is None else sorted(layers))
        self.is_first, self.is_last = 0 in self.layers, config.layers - 1 in self.layers
        rows: dict[str, Any] = {"comm": self.tp, "tokens": self.tokens}
        if self.is_first or self.is_last:
            self.wte = VocabParallelEmbedding(config.vocab, config.hidden, **rows)
        if self.is_first:
            self.wpe = Embedding(config.positions, config.hidden)
            self.drop = SequenceParallelDropout(config.dropout, self.tokens)
        self.h = nn.ModuleList()
        for i in self.layers:
            setattr(self.h, str(i), Block(config, **rows))
        if self.is_last:
            self.ln_f = LayerNorm(config.hidden)
        self.head: list[Parameter] = []  # a leaf in place of wte.weight; not one more parameter
        for name, module in self.named_modules():
            if isinstance(module, SequenceParallelDropout):
                module.name = name
        self.reset_parameters(seed)

    def shares(self, length: int) -> Shares:
        """What this rank has of the model and of `length` tokens."""
        block, tokens = self.h[0], length
        if self.tokens is not None:
            first, last = shard_range(length, self.tp.size, self.tp.rank)
            tokens = last - first
        count = lambda module: len(module.shards["weight"].index)
        words = count(self.wte) if self.is_last else 0
        return Shares(
            block.heads, count(block.c_fc), words, tokens, self.tp.size, self.tokens is not None
        )

    def reset_parameters(self, seed: int) -> None:
        deviation, parts = 0.02 * math.sqrt(768 / self.config.hidden), shards_of(self)
        for name, p in self.named_parameters():
            if name.endswith(".bias"):
                p.data[...] = 0
            elif ".ln_" in f".{name}":
                p.data[...] = 1
            else:
                scale = 1 / math.sqrt(2 * self.config.layers) if "proj" in name else 1
                shape = parts[name].shape if name in parts else p.shape
                normal = random.generator(seed, name).standard_normal(shape)
                normal = parts[name].take(normal) if name in parts else normal
                p.data[...] = deviation * scale * normal

    def forward(self, index: Tensor) -> Tensor:
        return communication.gather(self._logits(index), self.tp, -1)  # (b, s, V)

    def _logits(self, index: Tensor) -> Tensor:
        return self.part_of_logits(self.hidden(index))

    def part_of_logits(self, states: Tensor) -> Tensor:
        """Of this rank's part of the vocabulary, by the tied embedding: (b, s, V of this rank)."""
        return column_linear(states, self._tied(), None, self.tp, self.tokens)

    def hidden(self, index: Tensor) -> Tensor:
        """Tokens (b, s) -> the last layer's normalised states (b, s, h), or this rank's of them."""
        self.expect(index.shape[1])
        return self.stage(index, self.layers)

    def expect(self, length: int) -> None:
        """Be ready for so many tokens; ValueError for more than there are positions."""
        if length > self.config.positions:
            raise ValueError(
                f"GPT: {length} tokens, but it has {self.config.positions} positions: "
                "shorten the input or raise positions"
            )
        if self.tokens is not None:
            self.tokens.length = length

    def stage(self, x: Tensor, layers: Sequence[int]) -> Tensor:
        """What some of its layers make of tokens (b, s), if the first is there, or states."""
        if layers[0] == 0:
            mine = slice(x.shape[1]) if self.tokens is None else self.tokens.local
            x = self.drop(self.wte(x) + self.wpe.weight[mine])  # (b, s, h)
        for i in layers:
            x = getattr(self.h, str(i))(x)
        return self.ln_f(x) if layers[-1] == self.config.layers - 1 else x

    def loss(self, index: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of targets (b, s) after tokens (b, s)."""
        return self.loss_of(self.hidden(index), target, reduction)

    def loss_of(self, states: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of the last layer's normalised states.

        With a large vocabulary the logits, the largest array by far, are made in chunks.
        """
        large = self.config.vocab >= LARGE_VOCABULARY and self.tp.size == 1
        if is_grad_enabled() and large and self.tokens is None:
            rows = states.reshape(-1, self.config.hidden)
            return F.linear_cross_entropy(
                rows, self._tied(), target.reshape(-1), reduction=reduction
            )
        logits = self.part_of_logits(states)
        part = self.wte.shards["weight"]
        return vocab_parallel_cross_entropy(
            logits.reshape(-1, logits.shape[-1]), target.reshape(-1), part, reduction=reduction
        )

    def part_head(self) -> None:
        """Let the head's gradient have a sum of its own, until join_head().

        So a rank that has both ends of a pipeline adds up over micro-batches in the order of ranks
        that have one each.
        """
        if self.is_first and self.is_last:
            self.head = [Parameter(self.wte.weight)]

    def join_head(self) -> None:
        """Add the head's gradient to its weight's."""
        for head in self.head:
            if head.grad is not None:
                self.wte.weight.accumulate_grad(head.grad.data, owned=True)
                head.grad = None

    def _tied(self) -> Tensor:
        for head in self.head:
            head.data = self.wte.weight.data  # where it is now: it may have been moved
            return head
        return self.wte.weight

    @no_grad()
    def generate(
        self, prompt: xp.ndarray, tokens: int, temperature: float, top_k: int, seed: int
    ) -> xp.ndarray:
        """Continue prompt (s,) by `tokens` more, each drawn from the softmax of the last logits.

        Temperature 0 takes the likeliest; top_k > 0 draws among the k likeliest only.
        """
        follow = lambda window: self(Tensor(window).to(self.wte.weight.device))[0, -1]
        return continued(follow, prompt, tokens, self.config.positions, temperature, top_k, seed)


def continued(
    follow: Callable[[xp.ndarray], Tensor], prompt: xp.ndarray, tokens: int, positions: int,
    temperature: float, top_k: int, seed: int,
) -> xp.ndarray:  # fmt: skip
    """`generate` of any model: follow(window (1, s)) gives the logits (V,) of what comes next."""
    generator, out = random.generator(seed, "generate"), xp.asarray(prompt, xp.int64)
    for _ in range(tokens):
        logits = follow(out[-positions:][None]).cpu().double().data
        out = xp.append(out, _draw(logits, temperature, top_k, generator))
    return out


def _draw(
    logits: xp.ndarray, temperature: float, top_k: int, generator: xp.random.Generator
) -> int:
    if temperature == 0:
        return int(logits.argmax())
    if 0 < top_k < len(logits):
        logits = xp.where(logits < xp.sort(logits)[-top_k], -xp.inf, logits)
    p = xp.exp((logits - logits.max()) / temperature)
    return int(generator.choice(len(p), p=p / p.sum()))
