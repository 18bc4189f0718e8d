"""Reads what most files are, a graph without bodies in the order of its nodes, in little more than half the time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir

_BODIES = frozenset({onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS})
_LONGEST = 256
"""Bytes of the longest attribute of which nodes share one object: strides and kernels, but no tables."""


def read_flat(proto: onnx.ModelProto) -> ir.Model | None:
    """Return what `ir.from_proto` makes of a model; None for all that is left to it.

    Nodes with equal attributes share one object, which nothing changes: onnx-ir shares them too when it copies a graph.
    Left are functions, bodies, annotations for quantisation or devices, nodes out of order, names without a maker, and
    what onnx-ir says of a model that cannot be read.
    """
    try:
        return _model(proto)
    except ir.serde.SerdeError:
        return None


def _model(proto: onnx.ModelProto) -> ir.Model | None:
    graph = proto.graph
    if proto.functions or proto.configuration or graph.quantization_annotation:
        return None
    values = {info.name: ir.serde.deserialize_value_info_proto(info, None) for info in graph.input}
    inputs = list(values.values())
    if len(inputs) != len(graph.input):
        return None
    described = {info.name: info for info in graph.value_info}
    initializers = _initializers(graph, values, described)
    nodes = None if initializers is None else _nodes(graph, values, described)
    if initializers is None or nodes is None or any(info.name not in values for info in graph.output):
        return None
    outputs = [ir.serde.deserialize_value_info_proto(info, values[info.name]) for info in graph.output]
    main = ir.Graph(
        inputs, outputs, nodes=nodes, initializers=initializers, doc_string=_text(graph, "doc_string"),
        name=_text(graph, "name"), metadata_props=ir.serde.deserialize_metadata_props(graph.metadata_props),
    )  # fmt: skip
    main.opset_imports.update(ir.serde.deserialize_opset_import(proto.opset_import))
    return ir.Model(
        main, ir_version=proto.ir_version, producer_name=_text(proto, "producer_name"),
        producer_version=_text(proto, "producer_version"), domain=_text(proto, "domain"),
        model_version=proto.model_version if proto.HasField("model_version") else None,
        doc_string=_text(proto, "doc_string"),
        metadata_props=ir.serde.deserialize_metadata_props(proto.metadata_props),
    )  # fmt: skip


def _initializers(
    graph: onnx.GraphProto, values: dict[str, ir.Value], described: Mapping[str, onnx.ValueInfoProto]
) -> list[ir.Value] | None:
    made = []
    for stored in graph.initializer:
        tensor = ir.serde.deserialize_tensor(stored)
        name = tensor.name
        if not name:
            return None
        if name in values:
            values[name].const_value = tensor
        else:
            kind, shape = ir.TensorType(tensor.dtype), tensor.shape
            values[name] = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)  # type: ignore[arg-type]
            if name in described:
                ir.serde.deserialize_value_info_proto(described[name], values[name])
        made.append(values[name])
    return made


def _nodes(
    graph: onnx.GraphProto, values: dict[str, ir.Value], described: Mapping[str, onnx.ValueInfoProto]
) -> list[ir.Node] | None:
    shared: dict[bytes, ir.Attr] = {}
    nodes = []
    for node in graph.node:
        if node.device_configurations:
            return None
        try:
            inputs = [values[name] if name else None for name in node.input]
        except KeyError:
            return None
        attributes = []
        for one in node.attribute:
            if one.type in _BODIES:
                return None
            key = one.SerializeToString() if one.ByteSize() <= _LONGEST else b""
            found = shared.get(key)
            if found is None:
                found = ir.serde.deserialize_attribute(one)
                if key:
                    shared[key] = found
            attributes.append(found)
        outputs = []
        for name in node.output:
            if name in values and name:
                return None
            value = ir.Value(name=name)
            if name:
                values[name] = value
                if name in described:
                    ir.serde.deserialize_value_info_proto(described[name], value)
            outputs.append(value)
        metadata = ir.serde.deserialize_metadata_props(node.metadata_props) if node.metadata_props else None
        nodes.append(
            ir.Node(
                node.domain, node.op_type, inputs, attributes, overload=node.overload, outputs=outputs, name=node.name,
                doc_string=node.doc_string if node.HasField("doc_string") else None, metadata_props=metadata,
            )
        )  # fmt: skip
    return nodes


def _text(proto: onnx.ModelProto | onnx.GraphProto, field: str) -> Any:
    """Return a text, None where it is left out; what is no UTF-8 stays bytes."""
    return getattr(proto, field) if proto.HasField(field) else None
