"""ZeRO: optimiser states (stage 1), gradients (2) and parameters (3) in shards, one a rank."""

from .optimizer import Zero
from .stage3 import Zero3

__all__ = ["Zero", "Zero3"]
