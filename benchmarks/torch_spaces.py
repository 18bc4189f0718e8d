"""NATS-Bench sizes, NAS-Bench-Macro and DARTS networks as PyTorch modules, their parameters named as the exporters'."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn


def conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, dilation: int = 1) -> nn.Conv2d:
    """Return a square convolution without bias that keeps the size at stride 1."""
    pad = kernel // 2 * dilation
    return nn.Conv2d(inputs, outputs, kernel, stride, pad, dilation, groups, bias=False)


class ReluConvBn(nn.Module):
    """ReLU (which may be left out), convolution, batch normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, relu: bool = True) -> None:
        super().__init__()
        self.conv, self.bn, self.relu = conv(inputs, outputs, kernel, stride), nn.BatchNorm2d(outputs), relu

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(torch.relu(x) if self.relu else x))


class ConvBnRelu(nn.Module):
    """Convolution, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv, self.bn = conv(inputs, outputs, kernel, stride, groups), nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class Head(nn.Module):
    """The last normalisation of NATS-Bench networks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(x)).mean((2, 3))


class Stem(nn.Module):
    """3x3 convolution and batch normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv, self.bn = conv(3, width, 3), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv(x))


class SizesCell(nn.Module):
    """The best cell of the topology space: 3x3 convolutions everywhere, but for the shortcut from input to output."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        for a, b in ((0, 1), (0, 2), (1, 2), (1, 3), (2, 3)):
            self.add_module(f"edge{a}-{b}", ReluConvBn(outputs if a else inputs, outputs, 3))
        if inputs != outputs:
            self.add_module("edge0-3", ReluConvBn(inputs, outputs, 1, relu=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        edge = dict(self.named_children())
        first = edge["edge0-1"](x)
        second = edge["edge0-2"](x) + edge["edge1-2"](first)
        short = edge["edge0-3"](x) if "edge0-3" in edge else x
        return short + edge["edge1-3"](first) + edge["edge2-3"](second)


class SizesReduction(nn.Module):
    """Two 3x3 convolutions beside a pooled 1x1 one."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = ReluConvBn(inputs, outputs, 3, 2), ReluConvBn(outputs, outputs, 3)
        self.down = nn.ModuleDict({"conv": conv(inputs, outputs, 1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.b(self.a(x)) + self.down["conv"](nn.functional.avg_pool2d(x, 2))


class Sizes(nn.Module):
    """A network of the size search space."""

    def __init__(self, widths: Sequence[int], classes: int) -> None:
        super().__init__()
        self.stem = Stem(widths[0])
        before = widths[0]
        for layer, width in enumerate(widths):
            self.add_module(f"layer{layer}", (SizesReduction if layer % 2 else SizesCell)(before, width))
            before = width
        self.head, self.output = Head(before), nn.Linear(before, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for layer in range(5):
            x = getattr(self, f"layer{layer}")(x)
        return self.output(self.head(x))


class InvertedResidual(nn.Module):
    """Expansion, depthwise convolution, projection, and a shortcut where the shape allows one."""

    def __init__(self, inputs: int, outputs: int, stride: int, kernel: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.expand = ConvBnRelu(inputs, hidden, 1)
        self.depthwise = ConvBnRelu(hidden, hidden, kernel, stride, hidden)
        self.project = ReluConvBn(hidden, outputs, 1, relu=False)
        self.short = inputs == outputs and stride == 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.project(self.depthwise(self.expand(x)))
        return x + y if self.short else y


class Macro(nn.Module):
    """A network of NAS-Bench-Macro."""

    def __init__(self, digits: str, classes: int) -> None:
        super().__init__()
        self.stem = ConvBnRelu(3, 32, 3)
        self.names = []
        width = 32
        for place, digit in enumerate(digits):
            first = place in (0, 2, 5)
            outputs, stride = (2 * width, 2) if first else (width, 1)
            stage = (place >= 2) + (place >= 5)
            name = f"layer{place - (0, 2, 5)[stage]}"
            if digit != "0":
                layer: nn.Module = InvertedResidual(width, outputs, stride, *((3, 3) if digit == "1" else (5, 6)))
            else:
                layer = ReluConvBn(width, outputs, 1, stride, relu=False) if first else nn.Identity()
            if not hasattr(self, f"stage{stage}"):
                self.add_module(f"stage{stage}", nn.Module())
            getattr(self, f"stage{stage}").add_module(name, layer)
            self.names.append((f"stage{stage}", name))
            width = outputs
        self.head, self.output = ConvBnRelu(width, 1280, 1), nn.Linear(1280, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stage, layer in self.names:
            x = getattr(getattr(self, stage), layer)(x)
        return self.output(self.head(x).mean((2, 3)))


class Separable(nn.Module):
    """ReLU, depthwise and pointwise convolution, batch normalisation."""

    def __init__(self, width: int, kernel: int, stride: int, dilation: int = 1) -> None:
        super().__init__()
        self.depthwise = conv(width, width, kernel, stride, width, dilation)
        self.pointwise, self.bn = conv(width, width, 1), nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.pointwise(self.depthwise(torch.relu(x))))


class TwoSeparable(nn.Module):
    """A separable convolution, applied twice."""

    def __init__(self, width: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.first, self.second = Separable(width, kernel, stride), Separable(width, kernel, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


class FactorizedReduce(nn.Module):
    """ReLU, two shifted 1x1 convolutions of stride 2, batch normalisation."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv0, self.conv1 = (nn.Conv2d(inputs, outputs // 2, 1, 2, bias=False) for _ in range(2))
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(x)
        return self.bn(torch.cat([self.conv0(x), self.conv1(x[..., 1:, 1:])], 1))


class Rectangular(nn.Module):
    """ReLU, 1x7 and 7x1 convolution, batch normalisation."""

    def __init__(self, width: int, stride: int) -> None:
        super().__init__()
        self.conv0 = nn.Conv2d(width, width, (1, 7), (1, stride), (0, 3), bias=False)
        self.conv1 = nn.Conv2d(width, width, (7, 1), (stride, 1), (3, 0), bias=False)
        self.bn = nn.BatchNorm2d(width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.bn(self.conv1(self.conv0(torch.relu(x))))


def darts_operation(name: str, width: int, stride: int) -> nn.Module:
    """Return the module of one DARTS operation."""
    if name == "max_pool_3x3":
        return nn.MaxPool2d(3, stride, 1)
    if name == "avg_pool_3x3":
        return nn.AvgPool2d(3, stride, 1, count_include_pad=False)
    if name == "skip_connect":
        return nn.Identity() if stride == 1 else FactorizedReduce(width, width)
    if name == "conv_7x1_1x7":
        return Rectangular(width, stride)
    kernel = int(name[-1])
    return TwoSeparable(width, kernel, stride) if name.startswith("sep") else Separable(width, kernel, stride, 2)


class DartsCell(nn.Module):
    """A normal or a reduction cell."""

    def __init__(
        self, edges: Sequence[tuple[str, int]], concat: Sequence[int], widths: tuple[int, int], width: int,
        reduction: bool, after_reduction: bool,
    ) -> None:  # fmt: skip
        super().__init__()
        self.preprocess0 = FactorizedReduce(widths[0], width) if after_reduction else ReluConvBn(widths[0], width, 1)
        self.preprocess1 = ReluConvBn(widths[1], width, 1)
        self.concat, self.edges = concat, []
        for index, (name, source) in enumerate(edges):
            node = f"node{index // 2 + 2}"
            if not hasattr(self, node):
                self.add_module(node, nn.Module())
            edge = f"edge{index % 2}-{source}"
            getattr(self, node).add_module(edge, darts_operation(name, width, 2 if reduction and source < 2 else 1))
            self.edges.append((node, edge, source))

    def forward(self, before: torch.Tensor, last: torch.Tensor) -> torch.Tensor:
        states = [self.preprocess0(before), self.preprocess1(last)]
        for first, second in zip(self.edges[::2], self.edges[1::2], strict=True):
            states.append(sum(getattr(getattr(self, n), e)(states[s]) for n, e, s in (first, second)))
        return torch.cat([states[index] for index in self.concat], 1)


class Darts(nn.Module):
    """The CIFAR network of a genotype (anything with the four fields of DARTS' Genotype)."""

    def __init__(self, genotype: Mapping[str, Sequence], channels: int, layers: int, classes: int) -> None:
        super().__init__()
        self.stem = Stem(3 * channels)
        widths, width, reduced = (3 * channels, 3 * channels), channels, False
        for layer in range(layers):
            reduction = layer in (layers // 3, 2 * layers // 3)
            width *= 2 if reduction else 1
            kind = "reduce" if reduction else "normal"
            cell = DartsCell(genotype[kind], genotype[f"{kind}_concat"], widths, width, reduction, reduced)
            self.add_module(f"cell{layer}", cell)
            widths, reduced = (widths[1], width * len(cell.concat)), reduction
        self.layers, self.output = layers, nn.Linear(widths[1], classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = last = self.stem(x)
        for layer in range(self.layers):
            before, last = last, getattr(self, f"cell{layer}")(before, last)
        return self.output(last.mean((2, 3)))
