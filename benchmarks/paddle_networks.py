"""The networks of same_network.py as Paddle has them; imported in Paddle's environment, where this project is not."""

from __future__ import annotations

from typing import Any

from paddle import nn


class Convolutions(nn.Layer):  # type: ignore[misc]
    """Three convolutions with BatchNorm and a residual sum."""

    def __init__(self) -> None:
        super().__init__()
        widths = ((3, 16), (16, 32), (32, 32))
        self.convs = nn.LayerList([nn.Conv2D(a, b, 3, padding=1, bias_attr=False) for a, b in widths])
        self.norms = nn.LayerList([nn.BatchNorm2D(b) for _, b in widths])
        self.last = nn.Linear(32, 10)

    def forward(self, x: Any) -> Any:
        """Return 10 values for each image `[batch, 3, 16, 16]`."""
        for index in range(2):
            x = nn.functional.relu(self.norms[index](self.convs[index](x)))
        return self.last(nn.functional.relu(x + self.norms[2](self.convs[2](x))).mean([2, 3]))


class Recurrent(nn.Layer):  # type: ignore[misc]
    """An LSTM and a linear layer behind its last step."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.last = nn.LSTM(8, 16), nn.Linear(16, 5)

    def forward(self, x: Any) -> Any:
        """Return 5 values for each sequence `[batch, 12, 8]`."""
        return self.last(self.rnn(x)[0][:, -1])


def perceptron() -> Any:
    """Return two hidden layers of 64."""
    return nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))
