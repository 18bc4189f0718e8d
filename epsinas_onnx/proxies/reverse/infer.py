"""Infers the shapes and types of nodes that are in no graph yet."""

from __future__ import annotations

from collections.abc import Sequence

import onnx
import onnx_ir as ir

from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.proxies.reverse.scope import Scope

_SHORT = 64
"""Entries of the longest vector whose entries inference may need, such as a target shape."""


def infer_locally(nodes: Sequence[ir.Node], scope: Scope) -> None:
    """Write shapes and types onto the outputs of `nodes`, in an order of computation, from those of what they read."""
    made = {output for node in nodes for output in node.outputs}
    outer = {value for node in nodes for value in node.inputs if value is not None and value not in made}
    inputs, stored = [], []
    for value in outer:
        array = scope.constants.of(value)
        if array is not None and array.size <= _SHORT:
            stored.append(onnx.numpy_helper.from_array(array, str(value.name)))
        shape = known_shape(value) if array is None else array.shape
        dtype = value.dtype or (ir.DataType.FLOAT if array is None else ir.DataType.from_numpy(array.dtype))
        inputs.append(onnx.helper.make_tensor_value_info(str(value.name), int(dtype), shape))
    graph = onnx.helper.make_graph([ir.to_proto(node) for node in nodes], "part", inputs, [], stored)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", scope.write.opset)], ir_version=8)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {info.name: info.type.tensor_type for info in inferred.graph.value_info}
    for value in made:
        kind = found.get(str(value.name))
        if value.name and kind is not None and kind.elem_type:
            value.type = ir.TensorType(ir.DataType(kind.elem_type))
            if kind.HasField("shape"):
                value.shape = ir.Shape([d.dim_value if d.HasField("dim_value") else None for d in kind.shape.dim])


def complete_shapes(nodes: Sequence[ir.Node], scope: Scope) -> None:
    """Write the shapes that inference over the whole graph left open because they follow from computed sizes."""
    for node in nodes:
        if any(output.name and known_shape(output) is None for output in node.outputs):
            infer_locally([node], scope)
