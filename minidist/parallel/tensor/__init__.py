"""Tensor parallelism: each rank has a shard of a layer's weights."""

from .attention import ParallelAttention
from .conv import ColumnParallelConv2d, RowParallelConv2d
from .cross_entropy import vocab_parallel_cross_entropy
from .linear import ColumnParallelLinear, RowParallelLinear, VocabParallelEmbedding
from .recurrent import TensorParallelGRU, TensorParallelLSTM

__all__ = [
    "ColumnParallelConv2d",
    "ColumnParallelLinear",
    "ParallelAttention",
    "RowParallelConv2d",
    "RowParallelLinear",
    "TensorParallelGRU",
    "TensorParallelLSTM",
    "VocabParallelEmbedding",
    "vocab_parallel_cross_entropy",
]
