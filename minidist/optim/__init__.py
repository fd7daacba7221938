"""Optimisers: PyTorch's names, arguments and state_dict layout."""

from .adamw import AdamW
from .clip import clip_grad_norm_
from .lr_scheduler import warmup_cosine
from .optimizer import Optimizer
from .sgd import SGD

__all__ = ["SGD", "AdamW", "Optimizer", "clip_grad_norm_", "warmup_cosine"]
