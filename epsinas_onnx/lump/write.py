"""Writes a lowered graph as an ONNX model: only what its outputs need, under the names that they must have."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir

from epsinas_onnx.lump.graph import Body, LoweredGraph, Node, reads
from epsinas_onnx.lump.value import Array, Tensor

_A = onnx.AttributeProto
_KINDS = {
    ir.AttributeType.FLOAT: _A.FLOAT, ir.AttributeType.INT: _A.INT, ir.AttributeType.STRING: _A.STRING,
    ir.AttributeType.FLOATS: _A.FLOATS, ir.AttributeType.INTS: _A.INTS, ir.AttributeType.STRINGS: _A.STRINGS,
}  # fmt: skip


def write_model(graph: LoweredGraph, outputs: Mapping[str, Tensor], weight: Array | None) -> onnx.ModelProto:
    """Return the model that computes `outputs`, by name, without any node that they do not need.

    weight: the constants, float32 `[constants]`, for a graph whose stored tensors are computed from them; None for one
    that takes them as an input.
    """
    stored = set(graph.inputs) | graph.initializers.keys() | graph.derived.keys()
    names = {tensor: name for name, tensor in outputs.items() if tensor not in stored}
    live = graph.live_nodes(list(outputs.values()))
    proto = onnx.ModelProto(ir_version=8, producer_name="epsinas-onnx")
    written = proto.graph
    written.name = "lumped"
    writer = _Writer(names)
    written.node.extend([writer.node(node) for node in live])
    for name, tensor in outputs.items():
        if names.get(tensor) != name:
            written.node.add(op_type="Identity", input=[writer.name(tensor)], output=[name])
    domains = {"", *_domains(live)}
    for domain in domains:
        proto.opset_import.add(domain=domain, version=graph.imports.get(domain, 1))
    written.input.extend([_value_info(tensor.name, tensor) for tensor in graph.inputs])
    written.output.extend([_value_info(name, tensor) for name, tensor in outputs.items()])
    needed = {tensor for node in live for tensor in reads(node)} | set(outputs.values())
    for tensor, array in graph.initializers.items():
        if tensor in needed:
            written.initializer.append(tensor_proto(array, tensor.name))
    for tensor, make in graph.derived.items():
        if tensor in needed:
            assert weight is not None
            written.initializer.append(tensor_proto(make(weight), tensor.name))
    return proto


class _Writer:
    """Writes nodes into protobufs, under the names that the outputs must have."""

    def __init__(self, names: Mapping[Tensor, str]) -> None:
        self._names = names

    def name(self, tensor: Tensor | None) -> str:
        return "" if tensor is None else self._names.get(tensor, tensor.name)

    def node(self, node: Node) -> onnx.NodeProto:
        """Return one node."""
        outputs = [self.name(tensor) for tensor in node.outputs]
        return onnx.NodeProto(
            op_type=node.op_type,
            domain=node.domain,
            name=outputs[0],
            input=[self.name(tensor) for tensor in node.inputs],
            output=outputs,
            attribute=[self._attribute(key, value) for key, value in node.attributes.items()],
        )

    def _attribute(self, key: str, value: Any) -> onnx.AttributeProto:
        kind = None
        if isinstance(value, ir.Attr):
            kind = _KINDS.get(value.type)
            if kind is None:
                return ir.to_proto(value)
            value = value.value
        if isinstance(value, Body):
            proto = _A(name=key, type=_A.GRAPH)
            self._body(proto.g, key, value)
            return proto
        if isinstance(value, np.ndarray):
            return _A(name=key, type=_A.TENSOR, t=tensor_proto(value, ""))
        if isinstance(value, str):
            return _A(name=key, type=_A.STRING, s=value.encode())
        if isinstance(value, float):
            return _A(name=key, type=_A.FLOAT, f=value)
        if not isinstance(value, list | tuple):
            return _A(name=key, type=_A.INT, i=int(value))
        first = value[0] if value else None
        if kind == _A.FLOATS or isinstance(first, float):
            return _A(name=key, type=_A.FLOATS, floats=value)
        if kind == _A.STRINGS or isinstance(first, str):
            return _A(name=key, type=_A.STRINGS, strings=[item.encode() for item in value])
        return _A(name=key, type=_A.INTS, ints=value)

    def _body(self, graph: onnx.GraphProto, name: str, body: Body) -> None:
        graph.name = name
        made = {tensor for node in body.nodes for tensor in node.outputs}
        graph.node.extend([self.node(node) for node in body.nodes])
        for tensor in body.inputs:
            graph.input.append(_value_info(tensor.name, tensor))
        for index, tensor in enumerate(body.outputs):
            if tensor in made and tensor not in body.outputs[:index]:
                graph.output.append(_value_info(self.name(tensor), tensor))
                continue
            # What a body hands on must be made in it, under a name of its own.
            label = f"{self.name(tensor)}/{name}.out{index}"
            graph.node.add(op_type="Identity", input=[self.name(tensor)], output=[label])
            graph.output.append(_value_info(label, tensor))


def tensor_proto(array: Array, name: str) -> onnx.TensorProto:
    """Return an array as a stored tensor called `name`."""
    kind = ir.DataType.from_numpy(array.dtype)
    if kind in (ir.DataType.FLOAT, ir.DataType.INT64, ir.DataType.INT32, ir.DataType.DOUBLE):
        return onnx.TensorProto(name=name, data_type=int(kind), dims=array.shape, raw_data=array.tobytes())
    return ir.to_proto(ir.tensor(array, name=name))


def _value_info(name: str, tensor: Tensor) -> onnx.ValueInfoProto:
    info = onnx.ValueInfoProto(name=name)
    info.type.tensor_type.elem_type = int(tensor.dtype)
    if tensor.shape is not None:
        dims = info.type.tensor_type.shape
        dims.SetInParent()
        for dim in tensor.shape:
            dims.dim.add(dim_value=dim)
    return info


def _domains(nodes: Iterable[Node]) -> Iterable[str]:
    for node in nodes:
        yield node.domain
        for body in node.bodies.values():
            yield from _domains(body.nodes)
