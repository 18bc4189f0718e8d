"""Writes the part of a graph that some of its values need, without the shapes, which ONNX Runtime infers again."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import onnx
import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.traversal import node_bodies, operands
from epsinas_onnx.runtime.session import INITIALIZERS_ALONE


def needed_proto(model: ir.Model, values: Sequence[ir.Value], name: str) -> onnx.ModelProto:
    """Return a model that gives `values` of the main graph, with the nodes and initializers that they need.

    All inputs of the graph stay. A value that says no element type, as those of appended nodes, holds float32.

    Raises ModelError where onnx-ir cannot write what it read.
    """
    try:
        return _written(model, values)
    except Exception as error:
        raise ModelError(f"{name}: the graph cannot be written again: {error}") from error


def _given_back(body: ir.Graph) -> Iterator[ir.Value]:
    """Yield the outputs of a body and of those inside it, which may be values from outside."""
    yield from body.outputs
    for node in body.all_nodes():
        yield from (value for inner in node_bodies(node) for value in inner.outputs)


def _written(model: ir.Model, values: Sequence[ir.Value]) -> onnx.ModelProto:
    wanted, kept = set(values), []
    for node in reversed(model.graph):
        if not wanted.isdisjoint(node.outputs):
            wanted.update(operands(node))
            wanted.update(value for body in node_bodies(node) for value in _given_back(body))
            kept.append(node)
    proto = onnx.ModelProto(ir_version=max(model.ir_version, INITIALIZERS_ALONE))
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = model.graph.name or "graph"
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    for value in model.graph.initializers.values():
        if value in wanted and value.const_value is not None:
            ir.serde.serialize_tensor_into(graph.initializer.add(), value.const_value)
            graph.initializer[-1].name = value.name or ""
    for node in reversed(kept):
        ir.serde.serialize_node_into(graph.node.add(), node)
    for value in values:
        graph.output.add(name=value.name or "").type.tensor_type.elem_type = int(value.dtype or ir.DataType.FLOAT)
    return proto
