"""NAS-Bench-101 networks as PyTorch modules: an independent implementation, its parameters named alike."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn


class ConvBnRelu(nn.Module):
    """Convolution without bias, batch normalisation, ReLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        self.bn = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.bn(self.conv(x)))


class CellModule(nn.Module):
    """One cell; a vertex is computed by recursion from the output backwards, so that no order of vertices matters."""

    def __init__(self, matrix: Sequence[Sequence[int]], operations: Sequence[str], inputs: int, outputs: int) -> None:
        super().__init__()
        self.sources = [[a for a in range(len(matrix)) if matrix[a][v]] for v in range(len(matrix))]
        self.last = len(matrix) - 1
        feeding = [v for v in self.sources[self.last] if v > 0]
        self.width = {}
        for place, v in enumerate(feeding):
            self.width[v] = outputs // len(feeding) + int(place < outputs % len(feeding))
        for v in reversed(range(1, self.last)):
            if v not in self.width:
                self.width[v] = max(self.width[t] for t in range(v + 1, self.last) if v in self.sources[t])
        for v in range(1, self.last):
            vertex = nn.Module()
            if 0 in self.sources[v]:
                vertex.projection = ConvBnRelu(inputs, self.width[v], 1)
            if operations[v].startswith("conv"):
                kernel = 3 if "3x3" in operations[v] else 1
                inner = ConvBnRelu(self.width[v], self.width[v], kernel)
                vertex.conv, vertex.bn = inner.conv, inner.bn
            self.add_module(f"vertex{v}", vertex)
        if 0 in self.sources[self.last]:
            self.projection = ConvBnRelu(inputs, outputs, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        done: dict[int, torch.Tensor] = {}

        def value(v: int) -> torch.Tensor:
            if v not in done:
                vertex = getattr(self, f"vertex{v}")
                total = sum(value(a)[:, : self.width[v]] for a in self.sources[v] if a > 0)
                if 0 in self.sources[v]:
                    total = total + vertex.projection(x)
                if hasattr(vertex, "conv"):
                    done[v] = torch.relu(vertex.bn(vertex.conv(total)))
                else:
                    done[v] = nn.functional.max_pool2d(total, 3, 1, 1)
            return done[v]

        feeding = [value(v) for v in self.sources[self.last] if v > 0]
        projected = self.projection(x) if 0 in self.sources[self.last] else 0
        return torch.cat(feeding, 1) + projected if feeding else projected


class Network(nn.Module):
    """The CIFAR network of one cell."""

    def __init__(
        self, matrix: Sequence[Sequence[int]], operations: Sequence[str], channels: int, stacks: int, cells: int,
        classes: int,
    ) -> None:  # fmt: skip
        super().__init__()
        self.stem = ConvBnRelu(3, channels, 3)
        width = channels
        for stack in range(stacks):
            outputs = channels * 2**stack
            holder = nn.Module()
            for cell in range(cells):
                holder.add_module(f"cell{cell}", CellModule(matrix, operations, width, outputs))
                width = outputs
            self.add_module(f"stack{stack}", holder)
        self.stacks, self.cells = stacks, cells
        self.output = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for stack in range(self.stacks):
            if stack:
                x = nn.functional.max_pool2d(x, 2)
            for cell in range(self.cells):
                x = getattr(getattr(self, f"stack{stack}"), f"cell{cell}")(x)
        return self.output(x.mean((2, 3)))
