"""Multi-head attention and Transformer layers (Vaswani et al. 2017), under PyTorch's names."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from ..kernels import arrays as xp
from ..tensor.creation import full
from ..tensor.dtypes import DEFAULT, DTypeLike
from ..tensor.tensor import Tensor
from . import functional as F
from . import init
from .containers import ModuleList
from .layers import Dropout, Linear, empty
from .module import Module
from .norm import LayerNorm


def _additive(mask: Tensor, dtype: xp.dtype) -> Tensor:
    """A mask whose True hides, as numbers to add to scores; floats are such numbers."""
    return Tensor(xp.where(mask.data, -xp.inf, 0), dtype=dtype) if mask.dtype == bool else mask


class MultiheadAttention(Module):
    """Attention in num_heads subspaces, on (s, b, e), (b, s, e) with batch_first, or (s, e).

    in_proj_weight (3e, e) holds the rows of queries, keys and values, each (heads, e / heads, e):
    a rank may hold a range of the heads of all three. With kdim or vdim they are three weights.
    In masks True hides, floats are added. A query that sees nothing gets zeros (PyTorch: NaN if
    need_weights). `name` keys the dropout.
    """

    def __init__(
        self, embed_dim: int, num_heads: int, dropout: float = 0.0, bias: bool = True, *,
        kdim: int | None = None, vdim: int | None = None, batch_first: bool = False,
        dtype: DTypeLike = DEFAULT, name: str = "attention",
    ):  # fmt: skip
        assert embed_dim % num_heads == 0, (
            f"embed_dim {embed_dim} is not divisible by num_heads {num_heads}"
        )
        self.embed_dim, self.num_heads, self.dropout = embed_dim, num_heads, dropout
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.batch_first, self.name, self.in_proj_weight = batch_first, name, None
        if self.kdim == self.vdim == embed_dim:
            self.in_proj_weight = empty(3 * embed_dim, embed_dim, dtype=dtype)
        else:
            self.q_proj_weight = empty(embed_dim, embed_dim, dtype=dtype)
            self.k_proj_weight = empty(embed_dim, self.kdim, dtype=dtype)
            self.v_proj_weight = empty(embed_dim, self.vdim, dtype=dtype)
        for weight in self.parameters():
            init.xavier_uniform_(weight)
        self.in_proj_bias = empty(3 * embed_dim, dtype=dtype) if bias else None
        self.out_proj = Linear(embed_dim, embed_dim, bias, dtype=dtype)
        if self.out_proj.bias is not None:
            init.zeros_(self.out_proj.bias)

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_padding_mask: Tensor | None = None,
        need_weights: bool = True, attn_mask: Tensor | None = None,
        average_attn_weights: bool = True, is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:  # fmt: skip
        """The output, of query's form, and the weights (b, s, t), or (b, heads, s, t), or None.

        is_causal says that attn_mask is the causal one, which then need not be read.
        """
        shapes, packed = (query.shape, key.shape, value.shape), query is key is value
        assert query.ndim == key.ndim in (2, 3) and key.shape[:-1] == value.shape[:-1], (
            f"MultiheadAttention: query, key, value {shapes}: want three (s, b, e) or (s, e)"
        )
        assert query.shape[-1] == self.embed_dim, f"query {shapes[0]}: want e = {self.embed_dim}"
        if is_causal and attn_mask is None:
            raise RuntimeError("MultiheadAttention: is_causal says what attn_mask is: give it too")
        turn = back = lambda x: x if self.batch_first else x.transpose(0, 1)
        if query.ndim == 2:
            turn, back = (lambda x: x.unsqueeze(0)), (lambda x: x.squeeze(0))
        q, k, v = map(turn, (query, key, value))
        if len(q) != len(k):
            raise RuntimeError(f"MultiheadAttention: query, key, value {shapes}: batches differ")
        causal = is_causal and key_padding_mask is None and not need_weights
        mask = None if causal else self._mask(attn_mask, key_padding_mask, q, k.shape[1])
        options = mask, self.dropout if self.training else 0.0
        weights = None
        if packed and self.in_proj_weight is not None and not need_weights:
            qkv = F.linear(q, self.in_proj_weight, self.in_proj_bias)
            y = F.packed_attention(qkv, self.num_heads, causal, *options, name=self.name)
        else:
            y, weights = self._separate(q, k, v, need_weights, *options, causal)
        if weights is not None:
            weights = weights.mean(1) if average_attn_weights else weights
            weights = weights.squeeze(0) if query.ndim == 2 else weights
        return back(self.out_proj(y)), weights

    def _separate(
        self, q: Tensor, k: Tensor, v: Tensor, need_weights: bool, *options: Any
    ) -> tuple[Tensor, Tensor | None]:
        """The heads' outputs (b, s, e) and their weights (b, heads, s, t) if need_weights."""
        (b, s, _), e, weights = q.shape, self.embed_dim, None
        q, k, v = (self._heads(i, x) for i, x in enumerate((q, k, v)))
        if need_weights:  # attention to the unit vectors gives the weights themselves
            with xp.beside(q.data):
                unit = Tensor(xp.eye(k.shape[2]), dtype=q.dtype)
            weights = F.scaled_dot_product_attention(q, k, unit, *options, name=self.name)
            y = weights @ v
        else:
            y = F.scaled_dot_product_attention(q, k, v, *options, name=self.name)
        return y.transpose(1, 2).reshape(b, s, e), weights

    def _heads(self, i: int, x: Tensor) -> Tensor:
        """Projection i (queries, keys, values) of x: (b, heads, length, e / heads)."""
        e, whole, bias = self.embed_dim, self.in_proj_weight, self.in_proj_bias
        part = slice(i * e, (i + 1) * e)
        weight = getattr(self, f"{'qkv'[i]}_proj_weight") if whole is None else whole[part]
        y = F.linear(x, weight, None if bias is None else bias[part])
        return y.reshape(*y.shape[:2], self.num_heads, e // self.num_heads).transpose(1, 2)

    def _mask(self, attn: Tensor | None, padding: Tensor | None, q: Tensor, t: int) -> Any:
        """What is added to the scores (b, heads, s, t)."""
        b, s, _ = q.shape
        if attn is not None:
            attn = _additive(attn, q.dtype)
            attn = attn if attn.ndim == 2 else attn.reshape(b, self.num_heads, s, t)
        if padding is None:
            return attn
        assert padding.shape[-1] == t, f"key_padding_mask {padding.shape}: want {(b, t)}"
        padding = _additive(padding, q.dtype).reshape(b, 1, 1, t)
        return padding if attn is None else attn + padding


class TransformerLayer(Module):
    """What encoder and decoder layers share: feed-forward block, norms, residual paths.

    `name` begins the names that key the dropouts.
    """

    attentions: tuple[str, ...] = ("self_attn",)
    self_attn: MultiheadAttention
    multihead_attn: MultiheadAttention

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu, layer_norm_eps: float = 1e-5,
        batch_first: bool = False, norm_first: bool = False, bias: bool = True, *,
        dtype: DTypeLike = DEFAULT, name: str = "layer",
    ):  # fmt: skip
        if isinstance(activation, str) and activation not in ("relu", "gelu"):
            raise RuntimeError(f"activation {activation!r}: want 'relu', 'gelu' or a function")
        options: dict[str, Any] = {"batch_first": batch_first, "dtype": dtype}
        for a in self.attentions:
            options["name"] = f"{name}.{a}"
            setattr(self, a, MultiheadAttention(d_model, nhead, dropout, bias, **options))
        self.linear1 = Linear(d_model, dim_feedforward, bias, dtype=dtype)
        self.dropout = Dropout(dropout, name=f"{name}.dropout")
        self.linear2 = Linear(dim_feedforward, d_model, bias, dtype=dtype)
        blocks = range(1, len(self.attentions) + 2)
        for i in blocks:
            setattr(self, f"norm{i}", LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))
        for i in blocks:
            setattr(self, f"dropout{i}", Dropout(dropout, name=f"{name}.dropout{i}"))
        self.norm_first = norm_first
        self.activation = getattr(F, activation) if isinstance(activation, str) else activation

    def _feed(self, x: Tensor) -> Tensor:
        return self.linear2(self.dropout(self.activation(self.linear1(x))))

    def _add(self, number: int, x: Tensor, block: Callable[[Tensor], Tensor]) -> Tensor:
        """x + block(x), normed before the block or after the sum, as norm_first says."""
        norm, drop = (getattr(self, f"{kind}{number}") for kind in ("norm", "dropout"))
        return x + drop(block(norm(x))) if self.norm_first else norm(x + drop(block(x)))


class TransformerEncoderLayer(TransformerLayer):
    """Self-attention and a feed-forward block (Vaswani et al. 2017, 3.1)."""

    def forward(
        self, src: Tensor, src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, is_causal: bool | None = False,
    ) -> Tensor:  # fmt: skip
        masks = src_key_padding_mask, False, src_mask, True, is_causal
        x = self._add(1, src, lambda x: self.self_attn(x, x, x, *masks)[0])
        return self._add(2, x, self._feed)


class TransformerDecoderLayer(TransformerLayer):
    """Self-attention, attention to the encoder's output, and a feed-forward block."""

    attentions = ("self_attn", "multihead_attn")

    def forward(
        self, tgt: Tensor, memory: Tensor, tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, tgt_is_causal: bool | None = False,
        memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        own = tgt_key_padding_mask, False, tgt_mask, True, tgt_is_causal
        other = memory_key_padding_mask, False, memory_mask, True, memory_is_causal
        x = self._add(1, tgt, lambda x: self.self_attn(x, x, x, *own)[0])
        x = self._add(2, x, lambda x: self.multihead_attn(x, memory, memory, *other)[0])
        return self._add(3, x, self._feed)


class _Stack(Module):
    """num_layers copies of a layer, and a norm."""

    def __init__(self, layer: Module, num_layers: int, norm: Module | None = None):
        self.layers = ModuleList(copy.deepcopy(layer) for _ in range(num_layers))
        self.norm = norm
        for i, one in enumerate(self.layers):
            for m in one.modules():
                if hasattr(m, "name"):  # or all layers would drop the same units
                    m.name = f"{i}.{m.name}"

    def _through(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        for layer in self.layers:
            x = layer(x, *args, **kwargs)
        return x if self.norm is None else self.norm(x)


class TransformerEncoder(_Stack):
    """num_layers copies of a layer, and a norm (PyTorch's zeroes padded steps in eval)."""

    def forward(
        self, src: Tensor, mask: Tensor | None = None, src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:  # fmt: skip
        return self._through(src, mask, src_key_padding_mask, is_causal)


class TransformerDecoder(_Stack):
    """num_layers copies of a layer, to which the other arguments go, and a norm."""

    def forward(self, tgt: Tensor, memory: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return self._through(tgt, memory, *args, **kwargs)


class Transformer(Module):
    """Encoder and decoder (Vaswani et al. 2017), each a stack of layers and a norm.

    src (s, b, e) and tgt (t, b, e) -> (t, b, e); (b, s, e) with batch_first; (s, e) without a
    batch. Masks and the layers' dropout names as in TransformerEncoder and TransformerDecoder.
    """

    def __init__(
        self, d_model: int = 512, nhead: int = 8, num_encoder_layers: int = 6,
        num_decoder_layers: int = 6, dim_feedforward: int = 2048, dropout: float = 0.1,
        activation: str | Callable[[Tensor], Tensor] = F.relu, custom_encoder: Any = None,
        custom_decoder: Any = None, layer_norm_eps: float = 1e-5, batch_first: bool = False,
        norm_first: bool = False, bias: bool = True, *, dtype: DTypeLike = DEFAULT,
        name: str = "transformer",
    ):  # fmt: skip
        how = dim_feedforward, dropout, activation, layer_norm_eps, batch_first, norm_first, bias

        def stack(kind: Any, layer: Any, count: int, part: str) -> Module:
            one = layer(d_model, nhead, *how, dtype=dtype, name=f"{name}.{part}")
            return kind(one, count, LayerNorm(d_model, layer_norm_eps, bias=bias, dtype=dtype))

        self.encoder = custom_encoder or stack(
            TransformerEncoder, TransformerEncoderLayer, num_encoder_layers, "encoder"
        )
        self.decoder = custom_decoder or stack(
            TransformerDecoder, TransformerDecoderLayer, num_decoder_layers, "decoder"
        )
        self.d_model, self.nhead, self.batch_first = d_model, nhead, batch_first
        for p in self.parameters():
            if p.ndim > 1:
                init.xavier_uniform_(p)

    def forward(
        self, src: Tensor, tgt: Tensor, src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None, memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None, tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None, src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None, memory_is_causal: bool = False,
    ) -> Tensor:  # fmt: skip
        """The decoder's output. memory_mask (t, s): which steps of src a step of tgt may see."""
        both, batch = f"src {src.shape}, tgt {tgt.shape}", 0 if self.batch_first else 1
        if src.ndim == tgt.ndim == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError(f"Transformer: {both}: want equal batches, dimension {batch}")
        if {src.shape[-1], tgt.shape[-1]} != {self.d_model}:
            raise RuntimeError(f"Transformer: {both}: want d_model = {self.d_model} features")
        memory = self.encoder(
            src, mask=src_mask, src_key_padding_mask=src_key_padding_mask, is_causal=src_is_causal
        )
        return self.decoder(
            tgt, memory, tgt_mask=tgt_mask, memory_mask=memory_mask,
            tgt_key_padding_mask=tgt_key_padding_mask,
            memory_key_padding_mask=memory_key_padding_mask, tgt_is_causal=tgt_is_causal,
            memory_is_causal=memory_is_causal,
        )  # fmt: skip

    @staticmethod
    def generate_square_subsequent_mask(
        sz: int, device: Any = None, dtype: DTypeLike = DEFAULT
    ) -> Tensor:
        """The causal mask (sz, sz): -inf where a step would look ahead, 0 elsewhere."""
        return full((sz, sz), -math.inf, dtype, device=device).triu(1)
