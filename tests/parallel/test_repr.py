"""What parallel layers say of themselves: the sizes of the whole, and of this rank's shard."""

import pytest

from minidist import parallel
from minidist.comm import simulate

SHOWN = {
    "ColumnParallelLinear": ((4, 6), "in_features=4, out_features=6, bias=True", "weight (3, 4)"),
    "RowParallelLinear": ((4, 6), "in_features=4, out_features=6, bias=True", "weight (6, 2)"),
    "VocabParallelEmbedding": ((10, 3), "10, 3", "weight (5, 3)"),
    "ColumnParallelConv2d": ((3, 4, 2), "3, 4, kernel_size=(2, 2)", "weight (2, 3, 2, 2)"),
    "RowParallelConv2d": ((4, 3, 2), "4, 3, kernel_size=(2, 2)", "weight (3, 2, 2, 2)"),
    "TensorParallelLSTM": ((3, 4), "3, 4, num_layers=1", "weight_ih_l0 (8, 3)"),
    "TensorParallelGRU": ((3, 4), "3, 4, num_layers=1", "weight_ih_l0 (6, 3)"),
    "ParallelAttention": ((8, 4, 2), "8, 4, kv_heads=2, is_causal=True", "weight (8, 8)"),
}


@pytest.mark.parametrize("name", SHOWN)
def test_a_parallel_layer_prints_its_sizes_and_its_shard(name):
    sizes, whole, shard = SHOWN[name]
    layer = getattr(parallel, name)
    for rank, text in enumerate(simulate(lambda comm: repr(layer(*sizes, comm=comm)), 2)):
        assert whole in text and f"; rank {rank} of 2 has {shard}" in text, text
    assert whole in repr(layer(*sizes)) and "rank" not in repr(layer(*sizes))


def test_every_parallel_layer_of_this_package_is_listed_here():
    layers = {n for n in parallel.__all__ if n.startswith(("Column", "Row", "Vocab", "TensorP"))}
    assert layers <= set(SHOWN)
