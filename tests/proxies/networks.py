"""PyTorch networks with the weights of a prepared model, and what hooks see of them."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
from torch import nn

from epsinas_exporters.frameworks.pytorch import export_module
from epsinas_onnx.proxies.drawn import DRAWN
from epsinas_onnx.proxies.prepared import Prepared, prepare


class Plus(nn.Module):
    def forward(self, a: Any, b: Any) -> Any:
        return a + b


class Block(nn.Module):
    """A residual block whose second activation is SiLU."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = nn.Conv2d(inputs, outputs, 1, stride, bias=False) if stride > 1 else nn.Identity()
        self.plus, self.silu = Plus(), nn.SiLU()

    def forward(self, x: Any) -> Any:
        y = self.norm2(self.conv2(self.relu(self.norm1(self.conv1(x)))))
        return self.silu(self.plus(y, self.short(x)))


class Residual(nn.Module):
    """A stem with pooling, two residual blocks, a head; 16 x 16 images."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.bend = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.LeakyReLU()
        self.pool = nn.MaxPool2d(2)
        self.first, self.second = Block(6, 6, 1), Block(6, 12, 2)
        self.last = nn.Linear(12, 5)

    def forward(self, x: Any) -> Any:
        x = self.pool(self.bend(self.norm(self.stem(x))))
        return self.last(self.second(self.first(x)).mean((2, 3)))


def residual(**options: Any) -> tuple[nn.Module, Prepared]:
    """Return the network in training mode with the weights that were drawn for it, and the prepared model."""
    prepared = prepare(exported(), **options)
    return with_drawn(Residual(), prepared), prepared


@cache
def exported() -> ir.Model:
    return export_module(Residual(), [(1, 3, 16, 16)])


def with_drawn(module: nn.Module, prepared: Prepared) -> nn.Module:
    """Put drawn weights into a module, and what all else starts from: zeros, and ones for scales of norms."""
    state = dict(module.named_parameters())
    drawn = set()
    with torch.no_grad():
        for value in prepared.graph.graph.initializers.values():
            use = value.meta.get(DRAWN)
            if use is not None:
                (stored,) = use.stored
                array = torch.tensor(value.const_value.numpy())
                weight = state[str(stored.name)]
                weight.copy_(array if array.shape == weight.shape else array.T)
                drawn.add(str(stored.name))
        for name, weight in state.items():
            if name not in drawn:
                assert weight.ndim == 1, f"{name} was not drawn"
                weight.fill_(0.0 if name.endswith("bias") else 1.0)
    return module.train()


def seen(module: nn.Module, x: npt.NDArray[Any], kinds: Any) -> list[tuple[nn.Module, Any, Any]]:
    """Return module, first input and output of every module of some kinds, in the order of calls."""
    found: list[tuple[nn.Module, Any, Any]] = []
    hooks = [
        one.register_forward_hook(lambda m, given, out: found.append((m, given[0].clone(), out.clone())))
        for one in module.modules()
        if isinstance(one, kinds)
    ]
    with torch.no_grad():
        module(torch.tensor(np.array(x)))
    for hook in hooks:
        hook.remove()
    return found
