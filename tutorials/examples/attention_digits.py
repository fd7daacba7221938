"""One attention block (Vaswani et al. 2017) reads handwritten digits: eight rows as eight tokens.

Alone: python attention_digits.py. On four ranks: mpirun -n 4 python attention_digits.py.
"""

import minidist as md
from minidist import nn
from minidist.tensor.tensor import Tensor
from minidist.train.classify import digits_example


class Attender(nn.Module):
    """Rows of pixels (n, 8, 8) -> logits (n, 10), from all rows after one encoder layer."""

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.place = nn.Parameter(md.randn(8, width).data * 0.1)
        self.block = nn.TransformerEncoderLayer(
            width, nhead=4, dim_feedforward=128, dropout=0.1, batch_first=True, norm_first=True
        )
        self.classify = nn.Linear(8 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.embed(x) + self.place  # (n, 8, width)
        return self.classify(self.block(tokens).flatten(1))


if __name__ == "__main__":
    digits_example("attention", Attender, goal=0.96)
