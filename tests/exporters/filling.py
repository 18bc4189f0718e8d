"""Gives the weightless graphs of exporters real weights, to run them beside another implementation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime

Array = npt.NDArray[Any]


def parameter_shapes(proto: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shape of every parameter by name, running statistics included."""
    shapes = {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    return {
        node.output[0]: tuple(int(size) for size in shapes[node.input[0]])
        for node in proto.graph.node
        if node.op_type == "ConstantOfShape"
    }


def fill(proto: onnx.ModelProto, values: Mapping[str, Array]) -> None:
    """Replace parameters by stored values, in place; raises KeyError for a name that is no parameter."""
    made = {node.output[0]: node for node in proto.graph.node if node.op_type == "ConstantOfShape"}
    for name, value in values.items():
        proto.graph.node.remove(made[name])
        proto.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value, np.float32), name))


def random_values(proto: onnx.ModelProto, scale: Callable[[tuple[int, ...]], float], seed: int = 0) -> dict[str, Array]:
    """Return values for every parameter, normal with the deviation that `scale` gives for its shape."""
    rng = np.random.default_rng(seed)
    return {
        name: (rng.standard_normal(shape) * scale(shape)).astype(np.float32)
        for name, shape in parameter_shapes(proto).items()
    }


def assert_same_as_torch(proto: onnx.ModelProto, network: Any) -> None:
    """Assert that a graph and a torch module with parameters of the same names agree on random weights and images."""
    import torch

    torch.manual_seed(0)
    network.eval()  # with the statistics at initialisation, which the graph holds too
    values = dict(network.named_parameters())
    for tensor in values.values():
        if tensor.ndim == 1:
            torch.nn.init.uniform_(tensor, 0.5, 1.5)
    assert {name for name in parameter_shapes(proto) if not name.startswith("running")} == set(values)
    fill(proto, {name: tensor.detach().numpy() for name, tensor in values.items()})
    image = np.random.default_rng(0).standard_normal((3, 3, 32, 32)).astype(np.float32)
    ours = onnxruntime.InferenceSession(proto.SerializeToString()).run(None, {"input": image})[0]
    with torch.no_grad():
        theirs = network(torch.from_numpy(image)).numpy()
    assert np.ptp(theirs) > 0
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-4 * np.abs(theirs).max())
