"""A recurrent network (Elman 1990), step by step, reads handwritten digits: eight rows in turn.

Alone: python rnn_digits.py. On four ranks: mpirun -n 4 python rnn_digits.py.
"""

from minidist import nn
from minidist.tensor.tensor import Tensor
from minidist.train.classify import digits_example


class Reader(nn.Module):
    """Rows of pixels (n, 8, 8) -> logits (n, 10), from the state after the last row."""

    def __init__(self, hidden: int = 96) -> None:
        super().__init__()
        self.cell = nn.RNNCell(8, hidden)  # h' = tanh(W x + U h + b), the same at every step
        self.drop = nn.Dropout(0.2)
        self.classify = nn.Linear(hidden, 10)

    def forward(self, x: Tensor) -> Tensor:
        state = None  # zeros
        for row in x.unbind(1):  # (n, 8), from the top of the image
            state = self.cell(row, state)  # (n, hidden): all that is remembered of the rows above
        return self.classify(self.drop(state))


if __name__ == "__main__":
    digits_example("rnn", Reader, goal=0.96)
