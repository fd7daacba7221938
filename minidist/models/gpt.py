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
from ..errors import UserError
from ..kernels import arrays as xp
from ..nn import Embedding, LayerNorm, Parameter
from ..nn import functional as F
from ..ops import communication
from ..parallel.layout import init_shard_, shards_of
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
    """The sizes of one rank's part: attention heads, MLP units, words of the vocabulary, tokens.

    `ways` is the number of tensor-parallel ranks. `tokens` is all s of them, unless
    `sequence_parallel` splits them.
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
        head = c.hidden // c.heads  # the width of one head
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
        qkv = self.c_attn(self.ln_1(x))  # (b, s, 3h/t): this rank's heads
        heads = F.packed_attention(qkv, self.heads, is_causal=True)  # (b, s, h/t)
        x = x + self.drop_1(self.c_proj(heads))  # (b, s, h), summed over the ranks
        wide = F.gelu(self.c_fc(self.ln_2(x)), "tanh")  # (b, s, 4h/t): this rank's units
        return x + self.drop_2(self.mlp_proj(wide))  # (b, s, h), summed over the ranks


class HeadGradient:
    """A second leaf of the tape with the embedding's numbers, so that its gradient stays apart.

    It is no Parameter of the model: it has no name, and neither optimisers nor checkpoints see it.
    """

    def __init__(self, shared: Parameter):
        self.shared, self.leaf = shared, Parameter(shared)

    def weight(self) -> Tensor:
        self.leaf.data = self.shared.data  # the shared weight may have been moved or replaced
        return self.leaf

    def join(self) -> None:
        if self.leaf.grad is not None:
            self.shared.accumulate_grad(self.leaf.grad.data, owned=True)
            self.leaf.grad = None


class GPT(nn.Module):
    """A GPT-2: token numbers (b, s) -> logits (b, s, V).

    The same text serves every layout, and every layout has the same parameter names, starts from
    the same weights and drops the same units:

    - `tp`: the ranks of this communicator split the heads, the MLP's units and the vocabulary.
      With `sequence_parallel` they also split the tokens between the tensor-parallel layers.
    - `layers`: the layers that this rank of a pipeline has; by default all of them.

    Read it in this order: forward and loss, the steps between tokens and loss, the initial weights,
    and last the two parts that only a pipeline or sampling needs.
    """

    def __init__(
        self, config: GPTConfig, seed: int = 0, tp: Communicator | None = None,
        sequence_parallel: bool = False, layers: Iterable[int] | None = None,
    ):  # fmt: skip
        self.config = config
        self.tp = tp or CommSelf()
        self.tokens = Tokens(self.tp) if sequence_parallel else None
        self.layers = tuple(range(config.layers) if layers is None else sorted(layers))
        # The first layer brings the embedding along; the last one brings the norm and the head,
        # whose weight is the token embedding's (they are tied).
        self.is_first, self.is_last = 0 in self.layers, config.layers - 1 in self.layers
        cut: dict[str, Any] = {"comm": self.tp, "tokens": self.tokens}
        if self.is_first or self.is_last:
            self.wte = VocabParallelEmbedding(config.vocab, config.hidden, **cut)
        if self.is_first:
            self.wpe = Embedding(config.positions, config.hidden)
            self.drop = SequenceParallelDropout(config.dropout, self.tokens)
        self.h = nn.ModuleList()
        for i in self.layers:
            setattr(self.h, str(i), Block(config, **cut))
        if self.is_last:
            self.ln_f = LayerNorm(config.hidden)
        self.head: HeadGradient | None = None  # see part_head()
        for name, module in self.named_modules():
            if isinstance(module, SequenceParallelDropout):
                module.name = name
        self.reset_parameters(seed)

    # From tokens to loss. t is the number of tensor-parallel ranks; with sequence parallelism the
    # states between the layers are (b, s/t, h).

    def forward(self, index: Tensor) -> Tensor:
        """The logits of every next token, of the whole vocabulary on every rank."""
        states = self.stage(index, self.layers)  # (b, s, h)
        logits = self.logits(states)  # (b, s, V/t)
        return communication.gather(logits, self.tp, -1)  # (b, s, V)

    def loss(self, index: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        """Cross-entropy in nats of the targets (b, s) that follow the tokens (b, s)."""
        states = self.stage(index, self.layers)  # (b, s, h)
        return self.loss_of(states, target, reduction)

    def stage(self, x: Tensor, layers: Sequence[int]) -> Tensor:
        """Apply consecutive layers: all of them, or those of one stage of a pipeline.

        The first layer is preceded by the embedding, so x is then tokens (b, s) instead of states
        (b, s, h). The last layer is followed by the final norm.
        """
        if layers[0] == 0:
            x = self.embed(x)  # (b, s, h)
        for i in layers:
            x = getattr(self.h, str(i))(x)  # (b, s, h)
        return self.ln_f(x) if layers[-1] == self.config.layers - 1 else x

    def embed(self, index: Tensor) -> Tensor:
        """Token and position embeddings, added and dropped out: (b, s) -> (b, s, h)."""
        self.set_length(index.shape[1])
        # With sequence parallelism wte returns this rank's tokens only, at these positions.
        positions = slice(index.shape[1]) if self.tokens is None else self.tokens.local
        return self.drop(self.wte(index) + self.wpe.weight[positions])

    def logits(self, states: Tensor) -> Tensor:
        """Logits of this rank's part of the vocabulary: (b, s, h) -> (b, s, V/t)."""
        return column_linear(states, self.head_weight(), None, self.tp, self.tokens)

    def loss_of(self, states: Tensor, target: Tensor, reduction: str = "mean") -> Tensor:
        """The loss of the states (b, s, h) after the final norm."""
        target = target.reshape(-1)  # (b*s,)
        large = self.config.vocab >= LARGE_VOCABULARY and self.tp.size == 1
        if is_grad_enabled() and large and self.tokens is None:
            # The logits would be the largest array by far, so they are computed in chunks.
            rows = states.reshape(-1, self.config.hidden)  # (b*s, h)
            return F.linear_cross_entropy(rows, self.head_weight(), target, reduction=reduction)
        logits = self.logits(states)  # (b, s, V/t)
        rows = logits.reshape(-1, logits.shape[-1])  # (b*s, V/t)
        part = self.wte.shards["weight"]
        return vocab_parallel_cross_entropy(rows, target, part, reduction=reduction)

    def set_length(self, length: int) -> None:
        """Announce the number of tokens s; ValueError if the model has fewer positions.

        `embed` does so itself. Under sequence parallelism the later stages of a pipeline see only
        this rank's tokens, so there the caller announces s before every pass.
        """
        if length > self.config.positions:
            raise ValueError(
                f"GPT: {length} tokens, but it has {self.config.positions} positions: "
                "shorten the input or raise positions"
            )
        if self.tokens is not None:
            self.tokens.length = length

    # Initial weights

    def reset_parameters(self, seed: int) -> None:
        """Draw the initial weights: GPT-2's rule, whatever the layers' constructors drew.

        Matrices are normal with deviation 0.02 (at GPT-2's width 768; 0.02 * sqrt(768/h) at width
        h). The two projections that end in the residual sum are divided by sqrt(2L), because 2L
        of them are added up. Biases are 0 and norm scales 1.

        Every matrix has a Philox generator of its own, keyed by the seed and the parameter's name.
        It is drawn whole and then cut to this rank's part, so the layout does not change it.
        """
        shards, deviation = shards_of(self), 0.02 * math.sqrt(768 / self.config.hidden)
        for name, p in self.named_parameters():
            if name.endswith(".bias"):
                p.data[...] = 0
            elif ".ln_" in f".{name}":
                p.data[...] = 1
            else:
                scale = 1 / math.sqrt(2 * self.config.layers) if "proj" in name else 1
                normal = random.generator(seed, name).standard_normal
                std = deviation * scale
                init_shard_(p, shards.get(name), lambda shape: std * normal(shape))  # noqa: B023

    # For a pipeline, and for formulas of memory

    def part_head(self) -> None:
        """Let the head's gradient have a sum of its own, until join_head().

        The embedding and the head share one weight, so its gradient has two terms from every
        micro-batch. Two ranks that have one end of a pipeline each add up their terms apart, and
        then the two sums. A rank that has both ends must add in the same order: otherwise the last
        bits differ, for addition of floating-point numbers is not associative.
        """
        if self.is_first and self.is_last:
            self.head = HeadGradient(self.wte.weight)

    def join_head(self) -> None:
        """After the last micro-batch: add the head's gradient to the shared weight's."""
        if self.head is not None:
            self.head.join()

    def head_weight(self) -> Tensor:
        return self.wte.weight if self.head is None else self.head.weight()

    def shares(self, length: int) -> Shares:
        """This rank's part of the model and of `length` tokens."""
        block, tokens = self.h[0], length
        if self.tokens is not None:
            first, last = shard_range(length, self.tp.size, self.tp.rank)
            tokens = last - first
        count = lambda module: len(module.shards["weight"].index)
        words = count(self.wte) if self.is_last else 0
        return Shares(
            block.heads, count(block.c_fc), words, tokens, self.tp.size, self.tokens is not None
        )

    # Sampling

    @no_grad()
    def generate(
        self, prompt: xp.ndarray, tokens: int, temperature: float, top_k: int, seed: int,
        context: int | None = None,
    ) -> xp.ndarray:  # fmt: skip
        """Continue the prompt (s,) by `tokens` more: each is drawn from the softmax of the logits.

        Temperature 0 takes the likeliest token; top_k > 0 draws among the k likeliest only. The
        model sees the last `context` tokens, by default as many as it has positions for.
        """
        context = context or self.config.positions
        follow = lambda window: self(Tensor(window).to(self.wte.weight.device))[0, -1]
        return continued(follow, prompt, tokens, context, temperature, top_k, seed)


def continued(
    follow: Callable[[xp.ndarray], Tensor], prompt: xp.ndarray, tokens: int, context: int,
    temperature: float, top_k: int, seed: int,
) -> xp.ndarray:  # fmt: skip
    """Sampling with any model: follow(window (1, s)) returns the logits (V,) of the next token."""
    generator, out = random.generator(seed, "generate"), xp.asarray(prompt, xp.int64)
    for _ in range(tokens):
        logits = follow(out[-context:][None]).cpu().double().data
        out = xp.append(out, _draw(logits, temperature, top_k, generator))
    return out


def _draw(
    logits: xp.ndarray, temperature: float, top_k: int, generator: xp.random.Generator
) -> int:
    if not math.isfinite(logits.max()):  # true for NaN too; -inf may stand for "never"
        raise UserError(
            f"the model's logits are not finite ({logits.max()}): its training had diverged; "
            "train it again with a lower learning rate"
        )
    if temperature == 0:
        return int(logits.argmax())
    if 0 < top_k < len(logits):
        logits = xp.where(logits < xp.sort(logits)[-top_k], -xp.inf, logits)
    p = xp.exp((logits - logits.max()) / temperature)
    return int(generator.choice(len(p), p=p / p.sum()))
