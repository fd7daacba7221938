"""Ways to divide the work of training over ranks, one strategy a file or folder.

mesh.py         Mesh: which rank has which coordinates on the axes of parallelism
data/           data parallelism: gradients summed over the replicas; synchronised batch norm
zero/           ZeRO: optimiser states, gradients and parameters sharded over the replicas
tensor/         tensor parallelism: the weights of a layer sharded
sequence.py     sequence parallelism: activations between the layers sharded by tokens
pipeline/       pipeline parallelism: layers on different ranks, and its schedules
layout.py       how parameters are sharded: initial weights, full state_dicts
clip_grad.py    the global gradient norm in any layout
buckets.py      the flat arrays in which data parallelism and ZeRO send gradients
"""

from .clip_grad import clip_grad_norm_
from .data import (
    Bucketed,
    Naive,
    Overlapped,
    SyncBatchNorm,
    broadcast_parameters,
    convert_sync_batchnorm,
)
from .layout import full_state_dict, load_full_state_dict
from .mesh import Mesh
from .sequence import SequenceParallelDropout, Tokens
from .tensor import (
    ColumnParallelConv2d,
    ColumnParallelLinear,
    ParallelAttention,
    RowParallelConv2d,
    RowParallelLinear,
    TensorParallelGRU,
    TensorParallelLSTM,
    VocabParallelEmbedding,
    vocab_parallel_cross_entropy,
)
from .zero import Zero, Zero3

__all__ = [
    "Bucketed",
    "ColumnParallelConv2d",
    "ColumnParallelLinear",
    "Mesh",
    "Naive",
    "Overlapped",
    "ParallelAttention",
    "RowParallelConv2d",
    "RowParallelLinear",
    "SequenceParallelDropout",
    "SyncBatchNorm",
    "TensorParallelGRU",
    "TensorParallelLSTM",
    "Tokens",
    "VocabParallelEmbedding",
    "Zero",
    "Zero3",
    "broadcast_parameters",
    "clip_grad_norm_",
    "convert_sync_batchnorm",
    "full_state_dict",
    "load_full_state_dict",
    "vocab_parallel_cross_entropy",
]
