"""Data parallelism: each rank holds the model and computes on its rows of the batch."""

from .sum_gradients import Bucketed, Naive, Overlapped, Synchronizer, broadcast_parameters
from .sync_batch_norm import SyncBatchNorm, convert_sync_batchnorm

__all__ = [
    "Bucketed",
    "Naive",
    "Overlapped",
    "SyncBatchNorm",
    "Synchronizer",
    "broadcast_parameters",
    "convert_sync_batchnorm",
]
