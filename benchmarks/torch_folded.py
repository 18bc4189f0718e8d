"""A U-Net and a detector in the manner of YOLO, small ones: what folding BatchNorm must not confuse."""

from __future__ import annotations

import torch
from torch import nn


class DoubleConv(nn.Sequential):
    """Two convolutions, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(),
        )  # fmt: skip


class UNet(nn.Module):
    """Two levels, transposed convolutions without BatchNorm, a last convolution with a bias."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.down1, self.down2 = DoubleConv(3, width), DoubleConv(width, 2 * width)
        self.middle, self.pool = DoubleConv(2 * width, 4 * width), nn.MaxPool2d(2)
        self.up2, self.up1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)
        self.join2, self.join1 = DoubleConv(4 * width, 2 * width), DoubleConv(2 * width, width)
        self.out = nn.Conv2d(width, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.middle(self.pool(second))
        x = self.join2(torch.cat([self.up2(x), second], 1))
        return self.out(self.join1(torch.cat([self.up1(x), first], 1)))


class ConvBnSilu(nn.Module):
    """Convolution, BatchNorm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn, self.act = nn.BatchNorm2d(outputs), nn.SiLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.act(self.bn(self.conv(x)))


class Split(nn.Module):
    """Halves the channels, refines one half with residual pairs, joins everything."""

    def __init__(self, width: int, pairs: int) -> None:
        super().__init__()
        half = width // 2
        self.first = ConvBnSilu(width, width)
        self.pairs = nn.ModuleList(
            nn.Sequential(ConvBnSilu(half, half, 3), ConvBnSilu(half, half, 3)) for _ in range(pairs)
        )
        self.last = ConvBnSilu(half * (2 + pairs), width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.first(x).chunk(2, 1))
        for pair in self.pairs:
            parts.append(parts[-1] + pair(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Detect(nn.Module):
    """Boxes as distributions over 16 bins, and class probabilities, for every position of two maps."""

    def __init__(self, widths: tuple[int, ...], classes: int = 4) -> None:
        super().__init__()
        self.box = nn.ModuleList(self._branch(width, 64) for width in widths)
        self.kind = nn.ModuleList(self._branch(width, classes) for width in widths)
        self.bins = nn.Conv2d(16, 1, 1, bias=False)

    @staticmethod
    def _branch(width: int, outputs: int) -> nn.Module:
        return nn.Sequential(ConvBnSilu(width, 16, 3), ConvBnSilu(16, 16, 3), nn.Conv2d(16, outputs, 1))

    def forward(self, maps: list[torch.Tensor]) -> torch.Tensor:
        boxes = torch.cat([box(x).flatten(2) for box, x in zip(self.box, maps, strict=True)], 2)
        kinds = torch.cat([kind(x).flatten(2) for kind, x in zip(self.kind, maps, strict=True)], 2)
        count = boxes.shape[-1]
        boxes = self.bins(boxes.view(-1, 4, 16, count).transpose(1, 2).softmax(1)).view(-1, 4, count)
        return torch.cat([boxes, kinds.sigmoid()], 1)


class Yolo(nn.Module):
    """A backbone with two maps, one merged into the other, and a decoupled head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(ConvBnSilu(3, 16, 3, 2), ConvBnSilu(16, 32, 3, 2), Split(32, 1))
        self.middle = nn.Sequential(ConvBnSilu(32, 64, 3, 2), Split(64, 2))
        self.deep = nn.Sequential(ConvBnSilu(64, 128, 3, 2), Split(128, 1))
        self.up, self.merge = nn.Upsample(scale_factor=2), Split(192, 1)
        self.detect = Detect((192, 128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        middle = self.middle(self.stem(x))
        deep = self.deep(middle)
        return self.detect([self.merge(torch.cat([self.up(deep), middle], 1)), deep])
