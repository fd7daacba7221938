"""Learning rates as functions of the step."""

import math


def warmup_cosine(step: int, steps: int, warmup: int, lr: float, final: float) -> float:
    """Linear from lr/warmup at step 0 to lr, then half a cosine down to `final` at the last step.

    Loshchilov & Hutter 2017 (SGDR), one cycle.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    progress = (step - warmup) / max(1, steps - 1 - warmup)
    return final + (lr - final) * 0.5 * (1 + math.cos(math.pi * progress))
