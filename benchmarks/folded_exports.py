"""Exports the same networks with BatchNorm folded and unfolded: `python benchmarks/folded_exports.py torch OUT`.

The files become weightless (`strip`), so that tests can hold them. `torch` needs torch and torchvision; `keras` needs
tensorflow, keras and tf2onnx; `keras-torch` needs keras and torch, and writes a BatchNorm as stored arithmetic. Every
network gets random BatchNorm statistics, as a trained one has; with `--fresh` it is exported as it was made.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

SIZE = 64
SEED = 0
CELL = "|nor_conv_3x3~0|+|none~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_1x1~1|avg_pool_3x3~2|"


def main() -> None:
    """Write NETWORK.FORM.onnx for every network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("framework", choices=["torch", "keras", "keras-torch"])
    parser.add_argument("out", type=Path)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--fresh", action="store_true")
    chosen = parser.parse_args()
    warnings.filterwarnings("ignore")
    chosen.out.mkdir(parents=True, exist_ok=True)
    if chosen.framework == "torch":
        _torch(chosen.out, chosen.only, chosen.fresh)
    else:
        os.environ["KERAS_BACKEND"] = "torch" if chosen.framework == "keras-torch" else "tensorflow"
        _keras(chosen.out, chosen.only, chosen.fresh, chosen.framework)


def _save(name: str, out: Path, export: Callable[[str], object]) -> None:
    from epsinas_onnx import strip

    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/model.onnx"
        export(path)
        before = Path(path).stat().st_size
        strip(path, output=out / f"{name}.onnx")
    print(f"{name}: {before:,} bytes, {(out / f'{name}.onnx').stat().st_size:,} without weights", flush=True)


def _torch(out: Path, only: list[str], fresh: bool) -> None:
    import torch
    import torchvision.models as zoo
    from torch import nn

    from torch_folded import UNet, Yolo
    from torch_nasbench201 import Network

    names = ("resnet18", "resnet50", "mobilenet_v2", "mobilenet_v3_small", "efficientnet_b0", "densenet121",
             "regnet_y_400mf", "vgg11", "vgg11_bn")  # fmt: skip
    makers: dict[str, Callable[[], nn.Module]] = {name: lambda n=name: getattr(zoo, n)(weights=None) for name in names}
    makers |= {"unet": UNet, "yolo": Yolo, "nb201": lambda: Network(CELL, tracking=True)}
    batch = ({0: torch.export.Dim("batch", min=2, max=4096)},)
    forms: dict[str, dict[str, Any]] = {
        "default": {"dynamo": True, "dynamic_shapes": batch, "external_data": False, "verbose": False},
        "unfolded": {
            "dynamo": True, "dynamic_shapes": batch, "external_data": False, "verbose": False, "optimize": False,
        },
        "old": {"dynamo": False, "input_names": ["x"], "dynamic_axes": {"x": {0: "n"}}},
    }  # fmt: skip
    for name, make in makers.items():
        if only and name not in only:
            continue
        torch.manual_seed(SEED)
        network = make().eval()
        if not fresh:
            _train(network)
        # The pooling of VGG is written by the older exporter for one size only.
        image = torch.randn(2, 3, *[224 if "vgg" in name else SIZE] * 2)
        for form, options in forms.items():
            _save(f"torch-{name}.{form}", out, partial(torch.onnx.export, network, (image,), **options))


def _train(network: Any) -> None:
    from torch import nn

    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
        elif getattr(module, "bias", None) is not None:
            nn.init.normal_(module.bias, std=0.1)


def _keras(out: Path, only: list[str], fresh: bool, framework: str) -> None:
    import keras
    import numpy as np

    names = ("ResNet50", "MobileNetV2", "MobileNetV3Small", "EfficientNetB0", "DenseNet121", "VGG16")
    rng = np.random.default_rng(SEED)
    for name in names:
        if only and name not in only:
            continue
        make = getattr(keras.applications, name)
        network = make(weights=None, input_shape=(SIZE, SIZE, 3), classes=10, classifier_activation=None)
        for layer in [] if fresh else network._flatten_layers():
            if isinstance(layer, keras.layers.BatchNormalization):
                for weight in layer.weights:
                    positive = "gamma" in weight.name or "variance" in weight.name
                    weight.assign(rng.uniform(0.5, 1.5, weight.shape) if positive else rng.normal(0, 0.1, weight.shape))
            elif getattr(layer, "bias", None) is not None:
                layer.bias.assign(rng.normal(0, 0.1, layer.bias.shape))
        image = rng.random((2, SIZE, SIZE, 3), np.float32)
        network(image)
        if framework == "keras":
            _save(f"keras-{name}.tf2onnx", out, lambda path, n=network: _by_tf2onnx(n, path))
        else:
            _save(f"keras-{name}.stored", out, lambda path, n=network, x=image: _by_torch(n, x, path))


def _by_tf2onnx(network: Any, path: str) -> None:
    import numpy as np

    for old in ("object", "bool"):  # tf2onnx 1.17 still asks for them
        if not hasattr(np, old):
            setattr(np, old, getattr(__builtins__, old, None) or {"object": object, "bool": bool}[old])
    import tensorflow as tf
    import tf2onnx

    spec = [tf.TensorSpec((None, SIZE, SIZE, 3), tf.float32, name="input")]
    tf2onnx.convert.from_keras(network, spec, output_path=path)


def _by_torch(network: Any, image: Any, path: str) -> None:
    import torch

    torch.onnx.export(
        network.eval(), (torch.from_numpy(image),), path, dynamo=False, training=torch.onnx.TrainingMode.PRESERVE,
        do_constant_folding=False, input_names=["x"], dynamic_axes={"x": {0: "n"}},
    )  # fmt: skip


if __name__ == "__main__":
    main()
