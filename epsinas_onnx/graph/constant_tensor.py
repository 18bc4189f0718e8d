"""Reads what a graph stores, and writes its nodes one by one, by the shortest ways through onnx_ir."""

from __future__ import annotations

import onnx
import onnx_ir as ir
from onnx_ir import serde


def constant_tensor(value: ir.Value) -> ir.TensorProtocol | None:
    """Return what a value holds that is stored or a Constant, None for another.

    onnx_ir looks at every method of a tensor to see whether it is one, which takes longer than all else that is done
    with a small one.
    """
    node = value.producer()
    if value.const_value is None and node is not None and node.op_type == "Constant" and len(node.attributes) == 1:
        attribute = node.attributes.get("value")
        if attribute is not None and attribute.type == ir.AttributeType.TENSOR and not attribute.is_ref():
            tensor: ir.TensorProtocol = attribute.value
            return tensor
    return ir.convenience.get_const_tensor(value)


def node_proto(node: ir.Node) -> onnx.NodeProto:
    """Return a node as ONNX writes it; `ir.to_proto` first looks at every kind of thing that it might be."""
    return serde.serialize_node(node)
