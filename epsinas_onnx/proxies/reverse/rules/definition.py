"""Differentiates operators without a rule of their own by what ONNX defines them to be: a function of others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import onnx
import onnx_ir as ir

from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.infer import infer_locally
from epsinas_onnx.proxies.reverse.registry import DEFINED, Gradients, rule
from epsinas_onnx.proxies.reverse.walk import backward

NO_RULE = "there is no rule for its derivative"


@rule(DEFINED)
def defined(call: Call) -> Gradients:
    """Write the operator out by its definition, and differentiate that."""
    node = call.node
    body = _function(call)
    if body is None:
        raise call.refuse(NO_RULE)
    inputs = dict(zip(body.input, node.inputs, strict=False))
    nodes, outputs = _instantiated(call, body, inputs)
    infer_locally(nodes, call.scope)
    seeds = {
        outputs[name]: gradient for name, gradient in zip(body.output, call.gradients, strict=False)
        if gradient is not None and name in outputs
    }  # fmt: skip
    wrt = [call.input(slot) for slot in sorted(call.wanted)]
    return backward(call.scope, nodes, seeds, wrt)


def _function(call: Call) -> onnx.FunctionProto | None:
    """Return the definition of an operator as ONNX's schema holds it, None where it has none."""
    node = call.node
    if node.domain not in ("", "ai.onnx"):
        return None
    try:
        schema: Any = onnx.defs.get_schema(node.op_type, call.opset, "")
    except onnx.defs.SchemaError:
        return None
    if schema.has_function:
        versions = [version for version in schema.function_opset_versions if version <= call.opset]
        if versions:
            return _read(schema.get_function_with_opset_version(max(versions)))
    if schema.has_context_dependent_function:
        types = []
        for value in node.inputs:
            kind = onnx.TypeProto()
            if value is not None:
                dtype = value.dtype or ir.DataType.FLOAT
                kind = onnx.helper.make_tensor_type_proto(int(dtype), list(call.shape_of(value)))
            types.append(kind.SerializeToString())
        versions = [v for v in schema.context_dependent_function_opset_versions if v <= call.opset]
        if versions:
            made = schema.get_context_dependent_function_with_opset_version(
                max(versions), ir.to_proto(node).SerializeToString(), types
            )
            return _read(made)
    return None


def _read(data: bytes) -> onnx.FunctionProto:
    body = onnx.FunctionProto()
    body.ParseFromString(data)
    return body


def _instantiated(
    call: Call, body: onnx.FunctionProto, inputs: Mapping[str, ir.Value | None]
) -> tuple[list[ir.Node], dict[str, ir.Value]]:
    """Append the nodes of a definition; return them and their values by the names that the definition gives."""
    attributes = {attribute.name: attribute for attribute in ir.to_proto(call.node).attribute}
    defaults = {attribute.name: attribute for attribute in body.attribute_proto}
    schema = onnx.defs.get_schema(call.node.op_type, call.opset, "")
    for name, one in schema.attributes.items():
        if one.default_value.type:
            defaults.setdefault(name, one.default_value)
    values: dict[str, ir.Value | None] = {**dict.fromkeys(body.input), **inputs, "": None}
    nodes: list[ir.Node] = []
    for proto in body.node:
        if any(attribute.HasField("g") for attribute in proto.attribute):
            raise call.refuse(NO_RULE)
        given = []
        for attribute in proto.attribute:
            if not attribute.ref_attr_name:
                given.append(attribute)
                continue
            source = attributes.get(attribute.ref_attr_name) or defaults.get(attribute.ref_attr_name)
            if source is not None:
                named = onnx.AttributeProto()
                named.CopyFrom(source)
                named.name = attribute.name
                given.append(named)
        node = ir.Node(
            proto.domain, proto.op_type, [values[name] for name in proto.input],
            [ir.serde.deserialize_attribute(attribute) for attribute in given], num_outputs=len(proto.output),
        )  # fmt: skip
        call.write.adopt(node)
        nodes.append(node)
        values.update(zip(proto.output, node.outputs, strict=True))
    return nodes, {name: value for name in body.output if (value := values.get(name)) is not None}
