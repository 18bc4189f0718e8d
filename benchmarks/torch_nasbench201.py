"""NAS-Bench-201 networks as PyTorch modules: an independent implementation, to compare and to time against."""

from __future__ import annotations

import torch
from torch import nn


class ReluConvBn(nn.Module):
    """ReLU, convolution without bias, batch normalisation; `tracking` keeps running statistics."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, tracking: bool = False) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs, track_running_stats=tracking)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(torch.relu(x)))


class Zero(nn.Module):
    """The operation `none`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 0.0


def operation(name: str, width: int, tracking: bool) -> nn.Module:
    """Return the module of one operation."""
    if name == "none":
        return Zero()
    if name == "skip_connect":
        return nn.Identity()
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, 1, 1, count_include_pad=False)
    return ReluConvBn(width, width, 1 if name == "nor_conv_1x1" else 3, tracking=tracking)


class CellModule(nn.Module):
    """One cell: `edges` holds the operations 0-1, 0-2, 1-2, 0-3, 1-3, 2-3."""

    def __init__(self, operations: list[str], width: int, tracking: bool) -> None:
        super().__init__()
        self.edges = nn.ModuleList(operation(name, width, tracking) for name in operations)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        e = self.edges
        first = e[0](x)
        second = e[1](x) + e[2](first)
        return e[3](x) + e[4](first) + e[5](second)


class Reduction(nn.Module):
    """The residual block between stages."""

    def __init__(self, width: int, tracking: bool) -> None:
        super().__init__()
        self.a = ReluConvBn(width, 2 * width, 3, 2, tracking)
        self.b = ReluConvBn(2 * width, 2 * width, 3, 1, tracking)
        self.down_pool = nn.AvgPool2d(2, 2)
        self.down_conv = nn.Conv2d(width, 2 * width, 1, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.down_conv(self.down_pool(x)) + self.b(self.a(x))


class Network(nn.Module):
    """The CIFAR network of an architecture string, without running statistics unless `tracking`."""

    def __init__(self, arch: str, channels: int = 16, cells: int = 5, classes: int = 1, tracking: bool = False) -> None:
        super().__init__()
        operations = [edge.split("~")[0] for edge in arch.replace("+", "").split("|") if edge]
        self.stem_conv = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.stem_bn = nn.BatchNorm2d(channels, track_running_stats=tracking)
        widths = [channels, 2 * channels, 4 * channels]
        self.stages = nn.ModuleList(
            nn.ModuleList(CellModule(operations, width, tracking) for _ in range(cells)) for width in widths
        )
        self.reductions = nn.ModuleList(Reduction(width, tracking) for width in widths[:2])
        self.head_bn = nn.BatchNorm2d(widths[-1], track_running_stats=tracking)
        self.classifier = nn.Linear(widths[-1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem_bn(self.stem_conv(x))
        for stage, cells in enumerate(self.stages):
            if stage:
                x = self.reductions[stage - 1](x)
            for cell in cells:
                x = cell(x)
        x = torch.relu(self.head_bn(x)).mean((2, 3))
        return self.classifier(x)


def set_weights(network: nn.Module, constant: float) -> None:
    """Set every weight to `constant` and every bias to 0."""
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.fill_(0.0 if name.endswith("bias") else constant)
