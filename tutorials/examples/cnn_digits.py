"""A convolutional network of LeNet's size (LeCun et al. 1998) reads handwritten digits.

Alone: python cnn_digits.py. On four ranks: mpirun -n 4 python cnn_digits.py.
"""

from minidist import nn
from minidist.tensor.tensor import Tensor
from minidist.train.classify import digits_example


class LeNet(nn.Module):
    """Two convolutions, a pooling, two linear layers: pixels (n, 8, 8) -> logits (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1),  # (n, 16, 8, 8)
            nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1),  # (n, 32, 8, 8)
            nn.ReLU(),
            nn.MaxPool2d(2),  # (n, 32, 4, 4)
        )
        self.classify = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(0.3, name="1"),
            nn.Linear(512, 64),
            nn.ReLU(),
            nn.Dropout(0.3, name="2"),
            nn.Linear(64, 10),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.features(x.unsqueeze(1)))


if __name__ == "__main__":
    digits_example("cnn", LeNet, goal=0.98)
