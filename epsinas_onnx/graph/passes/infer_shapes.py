"""Writes concrete input shapes onto a graph, and infers every shape that follows."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import ShapeInferencePass

from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.shapes import known_shape, model_inputs
from epsinas_onnx.graph.constant_tensor import constant_tensor
from epsinas_onnx.graph.passes.fold_shapes import fold_known_shapes
from epsinas_onnx.graph.traversal import StaticValues, all_graphs, node_bodies

logger = logging.getLogger(__name__)

_LONGEST_VECTOR = 2**20
_MOST_FOLLOWED = 2**23
_COPIED = frozenset({"Add", "Cast", "Gather", "Identity", "Mul", "Shape", "Slice", "Squeeze", "Sub", "Unsqueeze"})
"""Operators through which inference follows entries (ONNX's schemas with data propagation), beside Concat."""
_LARGE = 1000
"""Bytes of a stored tensor whose entries inference has no use for."""
_ROUNDS = 8
"""How often shapes are inferred anew from what sizes gave before."""


def set_input_shapes(model: ir.Model, specs: Sequence[InputSpec], infer: bool = True) -> None:
    """Write concrete shapes onto the inputs, forget every shape that followed from the old ones, infer anew."""
    by_name = {spec.name: spec for spec in specs}
    for graph in all_graphs(model.graph):
        for node in graph:
            for output in node.outputs:
                output.shape = None
    for value in model_inputs(model):
        value.shape = ir.Shape(by_name[str(value.name)].shape)
    if infer:
        infer_shapes(model)


def infer_shapes(model: ir.Model) -> None:
    """Add every shape and type that ONNX's own inference finds; what it cannot find stays unknown."""
    _spell_out_onesided(model)
    data_prop = _vectors_are_short(model)
    _infer(model, data_prop)
    if _unmeasured(model):
        _follow_sizes(model, data_prop)


def _infer(model: ir.Model, data_prop: bool) -> None:
    """Have ONNX infer the shapes of a model once.

    `ShapeInferencePass` reads the whole model that ONNX gives back, half of the time for a small network; where there
    are no bodies and no functions the shapes in it are all that is needed.
    """
    graph = model.graph
    if model.functions or any(True for node in graph for _ in node_bodies(node)):
        ShapeInferencePass(check_type=False, strict_mode=False, data_prop=data_prop)(model)
        return
    try:
        inferred = onnx.shape_inference.infer_shapes(
            _without_large(model), check_type=False, strict_mode=False, data_prop=data_prop
        )
    except Exception as error:  # onnx raises many kinds, and then shapes stay unknown, as with the pass
        logger.warning("shape inference failed: %s", error)
        return
    found = {info.name: info.type for info in (*inferred.graph.value_info, *inferred.graph.output)}
    for node in graph:
        for value in node.outputs:
            kind = found.get(value.name or "")
            if kind is not None:
                _merge(value, kind)


def _merge(value: ir.Value, kind: onnx.TypeProto) -> None:
    """Take over the shape and element type that inference found."""
    if kind.WhichOneof("value") == "tensor_type":
        tensor = kind.tensor_type
        shape = None
        if tensor.HasField("shape"):
            shape = ir.Shape([getattr(dim, dim.WhichOneof("value") or "", None) for dim in tensor.shape.dim])
        dtype = ir.DataType(tensor.elem_type) if tensor.elem_type else None
    else:
        given = ir.serde.deserialize_type_proto_for_type(kind)
        shape, dtype = ir.serde.deserialize_type_proto_for_shape(kind), None if given is None else given.dtype
    if shape is not None and value.shape != shape:
        value.shape = shape
    if dtype is not None and value.dtype != dtype:
        value.dtype = dtype


def _without_large(model: ir.Model) -> onnx.ModelProto:
    """Write a model without bodies whose large initializers are inputs, so that none of their data is written."""
    proto = onnx.ModelProto(ir_version=model.ir_version)
    for domain, version in model.opset_imports.items():
        proto.opset_import.add(domain=domain, version=version)
    graph = proto.graph
    graph.name = model.graph.name or ""
    for value in model.graph.inputs:
        ir.serde.serialize_value_into(graph.input.add(), value)
    for value in model.graph.initializers.values():
        tensor = value.const_value
        if tensor is not None:
            value.shape = tensor.shape if value.shape is None else value.shape  # type: ignore[assignment]
            value.type = ir.TensorType(tensor.dtype) if value.dtype is None else value.type
            if tensor.nbytes <= _LARGE:
                ir.serde.serialize_tensor_into(graph.initializer.add(), tensor)
                graph.initializer[-1].name = value.name or ""
        if not value.is_graph_input():
            ir.serde.serialize_value_into(graph.input.add(), value)
    for node in model.graph:
        ir.serde.serialize_node_into(graph.node.add(), node)
        for value in node.outputs:
            if value.name and not value.is_graph_output() and (value.shape is not None or value.type is not None):
                ir.serde.serialize_value_into(graph.value_info.add(), value)
    for value in model.graph.outputs:
        ir.serde.serialize_value_into(graph.output.add(), value)
    return proto


def _spell_out_onesided(model: ir.Model) -> None:
    """Write the default of an STFT's `onesided`, which ONNX's inference takes for 0 where it is left out."""
    for graph in all_graphs(model.graph):
        for node in graph:
            if node.op_type == "STFT" and node.domain == "" and "onesided" not in node.attributes:
                node.attributes["onesided"] = ir.AttrInt64("onesided", 1)


def _vectors_are_short(model: ir.Model) -> bool:
    """Whether inference may follow the entries of vectors, each of which becomes a protobuf of 78 bytes.

    Operators that copy entries make a vector no longer than their operands are together, and it is theirs to be long.
    """
    length: dict[ir.Value | None, int] = {}
    total = 0
    for graph in all_graphs(model.graph):
        for value in graph.initializers.values():
            shape = value.shape
            if shape is not None and len(shape) == 1 and isinstance(shape[0], int):
                if shape[0] > _LONGEST_VECTOR:
                    return False
                length[value] = shape[0]
        for node in graph:
            if node.op_type == "Constant":
                tensor = constant_tensor(node.outputs[0])
                longest = 0 if tensor is None else tensor.size
            elif node.op_type == "Concat":
                longest = sum(length.get(value, 1) for value in node.inputs)
            elif node.op_type in _COPIED:
                longest = max((length.get(value, 1) for value in node.inputs), default=1)
            else:
                continue
            total += longest
            if longest > _LONGEST_VECTOR or total > _MOST_FOLLOWED:
                return False
            length[node.outputs[0]] = longest
    return True


def _unmeasured(model: ir.Model) -> list[ir.Value]:
    """Return the stored tensors, laid out anew, whose shape inference did not find."""
    static = StaticValues.of(model)
    return [
        output
        for graph in all_graphs(model.graph)
        for node in graph
        if node.op_type
        in ("Slice", "Reshape", "Expand", "Tile", "Concat", "Unsqueeze", "Transpose", "Split", "Squeeze")
        for output in node.outputs
        if output in static and known_shape(output) is None and static.stored(output) is not None
    ]


def _follow_sizes(model: ir.Model, data_prop: bool) -> None:
    """Give values shapes that follow from sizes by arithmetic, which ONNX's inference does not do."""
    measured = model.clone()
    for _ in range(_ROUNDS):
        if not fold_known_shapes(measured):
            break
        _infer(measured, data_prop)
    found = {v.name: v for graph in all_graphs(measured.graph) for node in graph for v in node.outputs if v.shape}
    for value in (v for graph in all_graphs(model.graph) for node in graph for v in node.outputs):
        if known_shape(value) is None and value.name in found:
            value.shape = found[value.name].shape
            value.type = value.type or found[value.name].type


_FOLLOWED = frozenset(
    {"Add", "AveragePool", "BatchNormalization", "Clip", "Concat", "Constant", "ConstantOfShape", "Conv", "Dropout",
     "Flatten", "Gemm", "GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu",
     "MatMul", "MaxPool", "Mul", "Relu", "Sigmoid", "Sub", "Sum"}
)  # fmt: skip
"""Operators of which lumping itself finds the shapes, given those of the weights."""


_MOST_AXES = 64


def weights_have_shapes(model: ir.Model) -> bool:
    """Give the weights that a convolutional network is made of their shapes; return whether that is all it takes.

    ONNX's inference costs more than everything else that is done with such a graph. It is not needed where all weights
    are stored or a ConstantOfShape, and all operators are ones whose shapes lumping finds by itself.
    """
    stored = {
        value: value.const_value.numpy().tolist()
        for value in model.graph.initializers.values()
        if value.dtype == ir.DataType.INT64 and value.const_value is not None and value.const_value.size <= _MOST_AXES
    }
    for node in model.graph:
        if node.op_type not in _FOLLOWED or node.domain != "":
            return False
        if node.op_type == "ConstantOfShape":
            dims = None if node.inputs[0] is None else stored.get(node.inputs[0])
            if dims is None:
                return False
            output, filling = node.outputs[0], node.attributes.get("value")
            output.shape = ir.Shape(dims)
            output.type = ir.TensorType(ir.DataType.FLOAT if filling is None else filling.value.dtype)
        elif node.op_type == "Constant":
            tensor = ir.convenience.get_const_tensor(node.outputs[0])
            if tensor is None:
                return False
            dims = [int(dim) for dim in tensor.shape]  # type: ignore[arg-type]
            node.outputs[0].shape, node.outputs[0].type = ir.Shape(dims), ir.TensorType(tensor.dtype)
        elif _needs_inference(node):
            return False
    return True


def _needs_inference(node: ir.Node) -> bool:
    """Whether windows, or a stored operand that may be a vector of one entry, cannot be told without shapes."""
    if node.op_type in ("AveragePool", "MaxPool"):
        attributes = node.attributes
        return attributes.get_int("ceil_mode", 0) == 1 or attributes.get_string("auto_pad", "NOTSET") != "NOTSET"
    if node.op_type in ("Add", "Mul", "Sub"):
        fixed = [v for v in node.inputs if v is not None and _is_fixed(v)]
        return len(fixed) == len(node.inputs) or any(set(known_shape(v) or ()) == {1} for v in fixed)
    return all(_is_fixed(v) for v in node.inputs)  # a weight that is computed from others


def _is_fixed(value: ir.Value | None) -> bool:
    return value is not None and (value.is_initializer() or _is_filled(value))


def _is_filled(value: ir.Value) -> bool:
    producer = value.producer()
    return producer is not None and producer.op_type in ("Constant", "ConstantOfShape")
