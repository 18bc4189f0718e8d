"""Exports the same networks from every framework: tests compare their scores, and models/ holds the convolutions.

    python benchmarks/same_network.py FRAMEWORK OUT

in an environment with that extra: torch, torchscript (torch), keras, tensorflow, jax or sklearn; `paddle` needs
`EPSINAS_PADDLE_PYTHON`, the interpreter of an environment with Paddle.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir

from kinds import export_kind

SHAPES = {"cnn": (3, 16, 16), "mlp": (20,), "lstm": (12, 8)}
WIDTHS = ((3, 16), (16, 32), (32, 32))
Models = dict[str, ir.Model]


def torch_networks() -> dict[str, Callable[[], Any]]:
    """Return what makes each network as a module of PyTorch."""
    import torch
    from torch import nn

    class Convolutions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in WIDTHS)
            self.norms = nn.ModuleList(nn.BatchNorm2d(b) for _, b in WIDTHS)
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

    return {"cnn": Convolutions, "mlp": perceptron, "lstm": Recurrent}


def from_torch() -> Models:
    """Return all three by `export_module`."""
    from epsinas_exporters.frameworks.pytorch import export_module

    return {name: export_module(made, [(1, *SHAPES[name])], name=name) for name, made in torch_networks().items()}


def from_torchscript() -> Models:
    """Return all three, traced, by `export_script`."""
    import torch

    from epsinas_exporters.frameworks.torchscript import export_script

    exported = {}
    for name, factory in torch_networks().items():
        shape = (2, *SHAPES[name])
        exported[name] = export_script(torch.jit.trace(factory().eval(), torch.zeros(shape)), [shape], name=name)
    return exported


def from_jax() -> Models:
    """Return all three, modules of flax.nnx, by `export_function`."""
    import jax.numpy as jnp
    from flax import nnx

    from epsinas_exporters.frameworks.jax import export_function

    class Convolutions(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.convs = nnx.List(nnx.Conv(a, b, (3, 3), use_bias=False, rngs=rngs) for a, b in WIDTHS)
            self.norms = nnx.List(nnx.BatchNorm(b, rngs=rngs) for _, b in WIDTHS)
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

    class Recurrent(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.rnn, self.last = nnx.RNN(nnx.LSTMCell(8, 16, rngs=rngs)), nnx.Linear(16, 5, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(self.rnn(x)[:, -1])

    networks = {"cnn": Convolutions, "mlp": Perceptron, "lstm": Recurrent}
    return {
        name: export_function(made(nnx.Rngs(0)), [channels_last(name)], name=name) for name, made in networks.items()
    }


def keras_networks() -> dict[str, Any]:
    """Return each network as a Keras model; its BatchNormalization gets PyTorch's epsilon."""
    from epsinas_exporters.frameworks.keras import keras

    layers = keras.layers

    def normalised(x: Any, width: int) -> Any:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        return layers.BatchNormalization(epsilon=1e-5)(x)

    given = layers.Input(channels_last("cnn")[1:])
    x = layers.ReLU()(normalised(layers.ReLU()(normalised(given, 16)), 32))
    x = layers.ReLU()(layers.Add()([x, normalised(x, 32)]))
    convolutions = keras.Model(given, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))

    def stacked(name: str, *rest: Any) -> Any:
        return keras.Sequential([layers.Input(SHAPES[name]), *rest, layers.Dense(5)])

    tanh = [layers.Dense(64, activation="tanh") for _ in range(2)]
    return {"cnn": convolutions, "mlp": stacked("mlp", *tanh), "lstm": stacked("lstm", layers.LSTM(16))}


def from_keras() -> Models:
    """Return all three by `export_model`, on the backend that Keras runs on."""
    from epsinas_exporters.frameworks.keras import export_model

    return {name: export_model(network, name=name) for name, network in keras_networks().items()}


def from_tensorflow() -> Models:
    """Return all three as SavedModels of Keras, by `export_saved_model`."""
    from epsinas_exporters.frameworks.tensorflow import export_saved_model

    exported = {}
    for name, network in keras_networks().items():
        with tempfile.TemporaryDirectory() as folder:
            network.export(folder, verbose=False)
            exported[name] = export_saved_model(folder, name=name)
    return exported


def from_sklearn() -> Models:
    """Return the perceptron by `export_estimator`."""
    from sklearn.neural_network import MLPRegressor

    from epsinas_exporters.frameworks.sklearn import export_estimator

    rng = np.random.default_rng(0)
    network = MLPRegressor(hidden_layer_sizes=(64, 64), activation="tanh", max_iter=1, solver="lbfgs")
    return {"mlp": export_estimator(network.fit(rng.random((20, 20)), rng.random((20, 5))), name="mlp")}


def from_paddle() -> Models:
    """Return all three by `export_network`."""
    from epsinas_exporters.frameworks import Input
    from epsinas_exporters.frameworks.paddle import export_network

    python = os.environ["EPSINAS_PADDLE_PYTHON"]
    names = {"cnn": "Convolutions", "mlp": "perceptron", "lstm": "Recurrent"}
    os.environ["PYTHONPATH"] = str(Path(__file__).parent)
    return {
        name: export_network(f"paddle_networks:{made}", [Input((1, *SHAPES[name]))], python=python, name=name)
        for name, made in names.items()
    }


def channels_last(name: str) -> tuple[int, ...]:
    """Return the shape of one sample as JAX and Keras have it, with the batch in front."""
    shape = SHAPES[name]
    return (1, *shape[1:], shape[0]) if len(shape) == 3 else (1, *shape)


EXPORTS: Mapping[str, Callable[[], Models]] = {
    "torch": from_torch,
    "torchscript": from_torchscript,
    "jax": from_jax,
    "keras": from_keras,
    "tensorflow": from_tensorflow,
    "sklearn": from_sklearn,
    "paddle": from_paddle,
}


def _writer(framework: str) -> Callable[[Path], None]:
    def write(out: Path) -> None:
        for name, model in EXPORTS[framework]().items():
            ir.save(model, out / f"{name}-{framework}.onnx")

    return write


if __name__ == "__main__":
    export_kind({framework: _writer(framework) for framework in EXPORTS}, __doc__)
