"""Networks in a few lines of torch, whose widths, depths and kernels are arguments of their constructors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn


class BasicBlock(nn.Module):  # type: ignore[misc]
    def __init__(self, entering: int, width: int, inner: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(entering, inner, 3, stride, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2, self.bn2 = nn.Conv2d(inner, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        same = stride == 1 and entering == width
        self.down = (
            None if same else nn.Sequential(nn.Conv2d(entering, width, 1, stride, bias=False), nn.BatchNorm2d(width))
        )

    def forward(self, x: Any) -> Any:
        y = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return torch.relu(y + (x if self.down is None else self.down(x)))


class ResNet(nn.Module):  # type: ignore[misc]
    """ResNet-18 unless told otherwise. inner: of both blocks of each stage; as wide as the stage unless given."""

    def __init__(
        self, widths: Sequence[int] = (64, 128, 256, 512), depths: Sequence[int] = (2, 2, 2, 2), kernel: int = 7,
        inner: Sequence[int] | None = None, classes: int = 1000,
    ) -> None:  # fmt: skip
        super().__init__()
        self.conv1 = nn.Conv2d(3, widths[0], kernel, 2, kernel // 2, bias=False)
        self.bn1, self.pool = nn.BatchNorm2d(widths[0]), nn.MaxPool2d(3, 2, 1)
        entering, stages = widths[0], []
        for number, (width, depth, within) in enumerate(zip(widths, depths, inner or widths, strict=True)):
            blocks = []
            for block in range(depth):
                blocks.append(BasicBlock(entering, width, within, 2 if number and not block else 1))
                entering = width
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.fc = nn.Linear(entering, classes)

    def forward(self, x: Any) -> Any:
        x = self.pool(torch.relu(self.bn1(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return self.fc(x.mean((2, 3)))


class Inverted(nn.Module):  # type: ignore[misc]
    def __init__(self, entering: int, width: int, hidden: int, stride: int, kernel: int, activation: type) -> None:
        super().__init__()
        layers = []
        if hidden != entering:
            layers += [nn.Conv2d(entering, hidden, 1, bias=False), nn.BatchNorm2d(hidden), activation()]
        depthwise = nn.Conv2d(hidden, hidden, kernel, stride, kernel // 2, groups=hidden, bias=False)
        layers += [depthwise, nn.BatchNorm2d(hidden), activation()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(hidden, width, 1, bias=False), nn.BatchNorm2d(width))
        self.residual = stride == 1 and entering == width

    def forward(self, x: Any) -> Any:
        return x + self.layers(x) if self.residual else self.layers(x)


class MobileNetV2(nn.Module):  # type: ignore[misc]
    """kernel: of all depthwise convolutions. hidden: of the third block, whose residual sum is the first.

    stages: how many of the seven there are.
    """

    def __init__(
        self, kernel: int = 3, activation: type = nn.ReLU6, hidden: int | None = None, classes: int = 1000,
        stages: int = 7,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 32, 3, 2, 1, bias=False), nn.BatchNorm2d(32), activation())
        entering, blocks = 32, []
        for expansion, width, repeats, stride in (
            (1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1),
        )[:stages]:  # fmt: skip
            for repeat in range(repeats):
                inside = hidden if hidden is not None and len(blocks) == 2 else entering * expansion
                blocks.append(Inverted(entering, width, inside, 1 if repeat else stride, kernel, activation))
                entering = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Sequential(nn.Conv2d(entering, 1280, 1, bias=False), nn.BatchNorm2d(1280), activation())
        self.fc = nn.Linear(1280, classes)

    def forward(self, x: Any) -> Any:
        return self.fc(self.last(self.blocks(self.stem(x))).mean((2, 3)))


class Encoder(nn.Module):  # type: ignore[misc]
    """torch's own encoder layers over tokens, with learned positions."""

    def __init__(
        self, width: int = 64, heads: int = 4, layers: int = 2, hidden: int = 256, activation: str = "gelu",
        tokens: int = 1000, steps: int = 32, classes: int = 10,
    ) -> None:  # fmt: skip
        super().__init__()
        self.embedding, self.positions = nn.Embedding(tokens, width), nn.Parameter(torch.randn(1, steps, width))
        layer = nn.TransformerEncoderLayer(width, heads, hidden, batch_first=True, activation=activation)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Any) -> Any:
        return self.head(torch.relu(self.encoder(self.embedding(tokens) + self.positions)).mean(1))
