"""A feed-forward network reads handwritten digits: 64 numbers in, ten classes out.

Alone: python mlp_digits.py. On four ranks: mpirun -n 4 python mlp_digits.py.
"""

from minidist import nn
from minidist.train.classify import digits_example


def build() -> nn.Module:
    """Pixels (n, 8, 8) -> logits (n, 10)."""
    return nn.Sequential(
        nn.Flatten(),  # (n, 64)
        nn.Linear(64, 128),
        nn.GELU(),
        nn.Dropout(0.2, name="1"),
        nn.Linear(128, 128),
        nn.GELU(),
        nn.Dropout(0.2, name="2"),
        nn.Linear(128, 10),
    )


if __name__ == "__main__":
    digits_example("mlp", build, goal=0.97)
