"""Exports small networks with converters of which PyPI holds few models; each kind in an environment of its own.

python benchmarks/framework_exports.py jax OUT        # pip install jax flax jax2onnx
python benchmarks/framework_exports.py paddle OUT     # pip install paddlepaddle paddle2onnx packaging
python benchmarks/framework_exports.py sklearn OUT    # pip install scikit-learn skl2onnx
python benchmarks/framework_exports.py quantised OUT  # with epsinas-onnx[cpu]: ONNX Runtime's quantiser over models/
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from kinds import export_kind


def from_jax(out: Path) -> None:
    """Write three flax networks through jax2onnx."""
    import jax
    import jax.numpy as jnp
    import onnx
    from flax import nnx
    from jax2onnx import to_onnx

    class Perceptron(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first, self.norm = (
                nnx.Linear(32, 128, rngs=rngs),
                nnx.BatchNorm(128, use_running_average=True, rngs=rngs),
            )
            self.middle, self.last = nnx.Linear(128, 128, rngs=rngs), nnx.Linear(128, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(nnx.relu(self.middle(nnx.relu(self.norm(self.first(x))))))

    class Convolutions(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Conv(3, 16, (3, 3), use_bias=False, rngs=rngs)
            self.second = nnx.Conv(16, 32, (3, 3), strides=2, use_bias=False, rngs=rngs)
            self.norms = nnx.List(nnx.BatchNorm(width, use_running_average=True, rngs=rngs) for width in (16, 32))
            self.last = nnx.Linear(32, 10, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = nnx.relu(self.norms[0](self.first(x)))
            return self.last(jnp.mean(nnx.relu(self.norms[1](self.second(x))), axis=(1, 2)))

    class Block(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.norms = nnx.List(nnx.LayerNorm(64, rngs=rngs) for _ in range(2))
            self.attention = nnx.MultiHeadAttention(4, 64, decode=False, rngs=rngs)
            self.wide, self.narrow = nnx.Linear(64, 256, rngs=rngs), nnx.Linear(256, 64, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            x = x + self.attention(self.norms[0](x))
            return x + self.narrow(nnx.gelu(self.wide(self.norms[1](x))))

    class Transformer(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.table, self.blocks = nnx.Embed(100, 64, rngs=rngs), nnx.List(Block(rngs) for _ in range(2))
            self.last = nnx.Linear(64, 10, rngs=rngs)

        def __call__(self, tokens: Any) -> Any:
            return self.last(self.blocks[1](self.blocks[0](self.table(tokens)))[:, -1])

    tokens = jax.ShapeDtypeStruct((2, 16), jnp.int32)
    given = {Perceptron: [("B", 32)], Convolutions: [("B", 32, 32, 3)], Transformer: [tokens]}
    for network, inputs in given.items():
        onnx.save(to_onnx(network(nnx.Rngs(0)), inputs), out / f"flax_{network.__name__.lower()}.onnx")


def from_paddle(out: Path) -> None:
    """Write four of Paddle's own networks through Paddle2ONNX."""
    import paddle
    from paddle.vision import models

    for name in ("resnet18", "mobilenet_v2", "mobilenet_v3_small", "squeezenet1_1"):
        network = getattr(models, name)()
        network.eval()
        spec = paddle.static.InputSpec([None, 3, 64, 64], "float32", "x")
        paddle.onnx.export(network, str(out / f"paddle_{name}"), input_spec=[spec], opset_version=17)


def from_sklearn(out: Path) -> None:
    """Write a perceptron, a pipeline, a forest and a support vector machine through skl2onnx, as it does by default."""
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.neural_network import MLPClassifier, MLPRegressor
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    x, y = load_digits(return_X_y=True)
    x = x.astype(np.float32)
    models = {
        "mlp": MLPClassifier(hidden_layer_sizes=(64, 32), max_iter=20),
        "regressor": MLPRegressor(hidden_layer_sizes=(50,), max_iter=20, activation="tanh"),
        "pipeline": make_pipeline(StandardScaler(), MLPClassifier(hidden_layer_sizes=(32, 32), max_iter=20)),
        "forest": RandomForestClassifier(10),
        "svc": SVC(),
    }
    for name, model in models.items():
        (out / f"sklearn_{name}.onnx").write_bytes(to_onnx(model.fit(x, y), x[:1]).SerializeToString())


def quantised(out: Path) -> None:
    """Write models/ as ONNX Runtime's quantiser turns them into integers: dynamically, and with calibrated ranges."""
    import onnx
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    from epsinas_onnx import fill

    class Samples(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, name: str, dims: list[int], whole: bool) -> None:
            rng = np.random.default_rng(0)
            draw = (lambda: rng.integers(0, 100, dims)) if whole else (lambda: rng.random(dims, np.float32))
            self.rest = iter([{name: draw()} for _ in range(4)])

        def get_next(self) -> Any:
            return next(self.rest, None)

    for name in ("mlp", "lstm", "transformer", "mobilenet_v2", "nb201-c3-c3-p-s-c3-s"):
        plain = out / f"{name}.float.onnx"
        given = fill(f"models/{name}.onnx", output=plain).graph.input[0]
        quantize_dynamic(plain, out / f"{name}.dynamic.onnx")
        dims = [dim.dim_value or 4 for dim in given.type.tensor_type.shape.dim]
        samples = Samples(given.name, dims, given.type.tensor_type.elem_type == onnx.TensorProto.INT64)
        quantize_static(
            plain, out / f"{name}.qdq.onnx", samples, quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
        )  # fmt: skip
        plain.unlink()


KINDS = {"jax": from_jax, "paddle": from_paddle, "sklearn": from_sklearn, "quantised": quantised}


if __name__ == "__main__":
    export_kind(KINDS, __doc__)
