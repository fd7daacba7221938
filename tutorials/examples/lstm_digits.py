"""A recurrent network (LSTM) reads handwritten digits row by row, as a sequence of eight.

Alone: python lstm_digits.py. On four ranks: mpirun -n 4 python lstm_digits.py.
"""

from minidist import nn
from minidist.tensor.tensor import Tensor
from minidist.train.classify import digits_example


class Reader(nn.Module):
    """Rows of pixels (n, 8, 8) -> logits (n, 10), from the state after the last row."""

    def __init__(self) -> None:
        super().__init__()
        self.read = nn.LSTM(8, 96, batch_first=True)
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        states, _ = self.read(x)  # (n, 8, 96)
        return self.classify(self.drop(states[:, -1]))


if __name__ == "__main__":
    digits_example("lstm", Reader, goal=0.97, lr=1e-2)
