"""Turns float16, bfloat16 and double graphs into float32 graphs, the arithmetic that the metric is defined in."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.dtypes import NARROWED
from epsinas_onnx.graph.traversal import all_graphs

# Attributes that name an element type: the outputs of these operators follow it.
_TYPE_ATTRIBUTES = {
    "Cast": "to",
    "EyeLike": "dtype",
    "RandomNormal": "dtype",
    "RandomNormalLike": "dtype",
    "RandomUniform": "dtype",
    "RandomUniformLike": "dtype",
    "Bernoulli": "dtype",
    "SequenceEmpty": "dtype",
    "DequantizeLinear": "output_dtype",
    "BlackmanWindow": "output_datatype",
    "HammingWindow": "output_datatype",
    "HannWindow": "output_datatype",
    "MelWeightMatrix": "output_datatype",
}


def to_float32(model: ir.Model) -> bool:
    """Make every float of `model` a float32, in place, bodies included; return whether anything changed.

    Tensors are converted when they are read, so weights that nobody reads cost nothing. Values beyond the float32
    range (mask constants of double models) become the largest finite float32 of their sign.
    """
    changed = False
    for graph in all_graphs(model.graph):
        for value in (*graph.inputs, *graph.initializers.values()):
            changed |= _retype(value)
            if value.const_value is not None and value.const_value.dtype in NARROWED:
                value.const_value = _as_float32(value.const_value)
        for node in graph:
            for output in node.outputs:
                changed |= _retype(output)
            changed |= _convert_attributes(node)
    return changed


def _retype(value: ir.Value) -> bool:
    if value.dtype not in NARROWED:
        return False
    value.dtype = ir.DataType.FLOAT
    return True


def _convert_attributes(node: ir.Node) -> bool:
    found = node.attributes.data  # a plain dict, which is several times faster to ask
    if not found:
        return False
    changed = False
    key = _TYPE_ATTRIBUTES.get(node.op_type)
    for name, attribute in list(found.items()):
        if (name != key and attribute.type != ir.AttributeType.TENSOR) or attribute.is_ref():
            continue
        if attribute.type == ir.AttributeType.TENSOR and attribute.value.dtype in NARROWED:
            node.attributes[name] = ir.AttrTensor(name, _as_float32(attribute.value))
            for output in node.outputs:
                output.const_value = None
            changed = True
        elif name == key and attribute.value in {int(dtype) for dtype in NARROWED}:
            node.attributes[name] = ir.AttrInt64(name, int(ir.DataType.FLOAT))
            changed = True
    return changed


def _as_float32(tensor: ir.TensorProtocol) -> ir.LazyTensor:
    def read() -> ir.TensorProtocol:
        limit = np.finfo(np.float32).max
        wide = tensor.numpy().astype(np.float64)
        return ir.tensor(np.where(np.isfinite(wide), np.clip(wide, -limit, limit), wide).astype(np.float32))

    shape = ir.Shape([int(dim) for dim in tensor.shape])  # type: ignore[arg-type]
    return ir.LazyTensor(read, dtype=ir.DataType.FLOAT, shape=shape, name=tensor.name, cache=False)
