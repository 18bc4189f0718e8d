"""Exports the same three networks from PyTorch, JAX and Keras, which tests/exporters/test_same_network.py compares.

    python benchmarks/same_network.py torch OUT   # epsinas-onnx[torch]
    python benchmarks/same_network.py jax OUT     # pip install jax flax jax2onnx
    python benchmarks/same_network.py keras OUT   # pip install keras tensorflow-cpu tf2onnx

and then `epsinas-onnx strip` of every file.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinds import export_kind

SHAPES = {"cnn": (3, 16, 16), "mlp": (20,), "lstm": (12, 8)}


def from_torch(out: Path) -> None:
    """Write all three by `export_module`."""
    import onnx_ir as ir
    import torch
    from torch import nn

    from epsinas_exporters.frameworks.pytorch import export_module

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            widths = ((3, 16), (16, 32), (32, 32))
            self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in widths)
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in widths)
            self.last = nn.Linear(32, 10)

        def forward(self, x: Any) -> Any:
            for conv, norm in zip(self.convs[:2], self.norms[:2], strict=True):
                x = torch.relu(norm(conv(x)))
            return self.last(torch.relu(x + self.norms[2](self.convs[2](x))).mean((2, 3)))

    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.last = nn.LSTM(8, 16, batch_first=True), nn.Linear(16, 5)

        def forward(self, x: Any) -> Any:
            return self.last(self.rnn(x)[0][:, -1])

    def perceptron() -> nn.Module:
        return nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 5))

    for name, factory in (("cnn", Convolutions), ("mlp", perceptron), ("lstm", Recurrent)):
        ir.save(export_module(factory, [(1, *SHAPES[name])], name=name), out / f"{name}.torch.onnx")


def from_jax(out: Path) -> None:
    """Write the convolutions and the perceptron through jax2onnx, which cannot trace flax's recurrent layer."""
    import jax.numpy as jnp
    import onnx
    from flax import nnx
    from jax2onnx import to_onnx

    class Convolutions(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            widths = ((3, 16), (16, 32), (32, 32))
            self.convs = nnx.List(nnx.Conv(a, b, (3, 3), use_bias=False, rngs=rngs) for a, b in widths)
            self.norms = nnx.List(nnx.BatchNorm(b, use_running_average=True, rngs=rngs) for _, b in widths)
            self.last = nnx.Linear(32, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            for index in range(2):
                x = nnx.relu(self.norms[index](self.convs[index](x)))
            return self.last(jnp.mean(nnx.relu(x + self.norms[2](self.convs[2](x))), axis=(1, 2)))

    class Perceptron(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first, self.second = nnx.Linear(20, 64, rngs=rngs), nnx.Linear(64, 64, rngs=rngs)
            self.last = nnx.Linear(64, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(jnp.tanh(self.second(jnp.tanh(self.first(x)))))

    channels, height, width = SHAPES["cnn"]
    given = {"cnn": (Convolutions, ("B", height, width, channels)), "mlp": (Perceptron, ("B", *SHAPES["mlp"]))}
    for name, (network, shape) in given.items():
        onnx.save(to_onnx(network(nnx.Rngs(0)), [shape]), out / f"{name}.jax.onnx")


def from_keras(out: Path) -> None:
    """Write all three by Keras' own export; its BatchNormalization gets PyTorch's epsilon."""
    import keras
    from keras import layers

    def convolutions() -> Any:
        def normalised(x: Any, width: int) -> Any:
            x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
            return layers.BatchNormalization(epsilon=1e-5)(x)

        channels, height, width = SHAPES["cnn"]
        given = layers.Input((height, width, channels))
        x = layers.ReLU()(normalised(layers.ReLU()(normalised(given, 16)), 32))
        x = layers.ReLU()(layers.Add()([x, normalised(x, 32)]))
        return keras.Model(given, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))

    def stacked(name: str, *rest: Any) -> Any:
        return keras.Sequential([layers.Input(SHAPES[name]), *rest, layers.Dense(5)])

    tanh = [layers.Dense(64, activation="tanh") for _ in range(2)]
    networks = {"cnn": convolutions(), "mlp": stacked("mlp", *tanh), "lstm": stacked("lstm", layers.LSTM(16))}
    for name, network in networks.items():
        network(np.zeros((1, *network.input_shape[1:]), np.float32))
        network.export(str(out / f"{name}.keras.onnx"), format="onnx", verbose=False)


KINDS = {"torch": from_torch, "jax": from_jax, "keras": from_keras}


if __name__ == "__main__":
    export_kind(KINDS, __doc__)
