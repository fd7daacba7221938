"""Tensor-parallel self-attention: each rank has some heads of queries, and the keys they share.

Shapes: b samples, s tokens, e features, a heads and k heads of keys of width e/a, t ranks.
"""

from __future__ import annotations

from typing import Any

from ...comm import Communicator
from ...comm.comm_self import CommSelf
from ...kernels import arrays as xp
from ...nn import Module
from ...nn import functional as F
from ...tensor.dtypes import DEFAULT, DTypeLike
from ...tensor.tensor import Tensor
from ..layout import shard_indices
from ..sequence import Tokens
from .linear import ColumnParallelLinear, RowParallelLinear


class ParallelAttention(Module):
    """Multi-head self-attention (b, s, e) -> (b, s, e) with grouped queries (Ainslie et al. 2023).

    Each of the `kv_heads` heads of keys and values serves a group of num_heads / kv_heads heads of
    queries, and a rank has whole groups. qkv.weight has the rows of all queries, then keys, then
    values. One all-reduce in forward and one in backward (Shoeybi et al. 2019, section 3).
    """

    shown = ("*embed_dim", "*num_heads", "kv_heads", "is_causal")

    def __init__(
        self, embed_dim: int, num_heads: int, kv_heads: int | None = None, bias: bool = True, *,
        is_causal: bool = True, comm: Communicator | None = None, tokens: Tokens | None = None,
        dtype: DTypeLike = DEFAULT,
    ):  # fmt: skip
        kv_heads = num_heads if kv_heads is None else kv_heads
        if embed_dim % num_heads or num_heads % kv_heads:
            raise ValueError(
                f"ParallelAttention: {embed_dim} in {num_heads} heads that share {kv_heads} of "
                "keys: want multiples, of heads and of groups"
            )
        self.embed_dim, self.num_heads, self.kv_heads = embed_dim, num_heads, kv_heads
        comm, self.is_causal, self.width = comm or CommSelf(), is_causal, embed_dim // num_heads
        group, kv = num_heads // kv_heads * self.width, kv_heads * self.width
        queries, keys = shard_indices(embed_dim, comm, group), shard_indices(kv, comm, self.width)
        self.sizes = [len(queries), len(keys), len(keys)]
        index = xp.concatenate([queries, embed_dim + keys, embed_dim + kv + keys])
        rows: dict[str, Any] = {"comm": comm, "tokens": tokens, "dtype": dtype}
        self.qkv = ColumnParallelLinear(embed_dim, embed_dim + 2 * kv, bias, index=index, **rows)
        self.out_proj = RowParallelLinear(embed_dim, embed_dim, bias, unit=group, **rows)

    def forward(self, input: Tensor) -> Tensor:
        qkv = self.qkv(input)  # (b, s, (a + 2k)/t · e/a): this rank's heads only
        q, k, v = (self._split_heads(x) for x in qkv.split(self.sizes, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal, enable_gqa=True)
        b, heads, s, width = y.shape  # (b, a/t, s, e/a)
        merged = y.transpose(1, 2).reshape(b, s, heads * width)  # (b, s, e/t)
        return self.out_proj(merged)  # (b, s, e), summed over the tensor-parallel ranks

    def _split_heads(self, x: Tensor) -> Tensor:
        """(b, s, heads · width) -> (b, heads, s, width)."""
        b, s, e = x.shape
        return x.reshape(b, s, e // self.width, self.width).transpose(1, 2)
