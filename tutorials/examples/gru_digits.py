"""Two GRUs (Cho et al. 2014) read handwritten digits, one down the rows and one up.

Alone: python gru_digits.py. On four ranks: mpirun -n 4 python gru_digits.py.
"""

import minidist as md
from minidist import nn
from minidist.tensor.tensor import Tensor
from minidist.train.classify import digits_example


class Reader(nn.Module):
    """Rows of pixels (n, 8, 8) -> logits (n, 10), from both last states."""

    def __init__(self, hidden: int = 64) -> None:
        super().__init__()
        self.read = nn.GRU(8, hidden, batch_first=True, bidirectional=True)
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(2 * hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        _, (down, up) = self.read(x)  # each (n, hidden)
        return self.classify(self.drop(md.cat([down, up], 1)))


if __name__ == "__main__":
    digits_example("gru", Reader, goal=0.965, lr=1e-2)
