"""Tells how many features a layer gives from its stored weight alone, before any shape was inferred."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.tensor_summary import stored_shape

_KEEPS = frozenset(
    {"Identity", "Cast", "Reshape", "Transpose", "RotaryEmbedding", "LayerNormalization", "RMSNormalization",
     "SimplifiedLayerNormalization", "Add"}
)  # fmt: skip
"""Operators that hand on as many features as they take, in heads or side by side."""


def feature_count(value: ir.Value | None) -> int | None:
    """Return how many features the nearest layer before a value gives, None where none is found that tells."""
    seen: set[ir.Value] = set()
    while value is not None and value not in seen:
        seen.add(value)
        node = value.producer()
        if node is None:
            return None
        match node.op_type:
            case "MatMul":
                return _stored_size(node.inputs[1], -1)
            case "Gemm":
                return _stored_size(node.inputs[1], 0 if node.attributes.get_int("transB", 0) else -1)
            case "MatMulNBits":
                return node.attributes.get_int("N", 0) or None
            case op_type if op_type not in _KEEPS:
                return None
        stored = len(node.inputs) > 1 and node.op_type == "Add" and node.inputs[0] is not None
        value = node.inputs[1] if stored and _stored_size(node.inputs[0], -1) is not None else node.inputs[0]
    return None


def _stored_size(value: ir.Value | None, axis: int) -> int | None:
    shape = stored_shape(value)
    return shape[axis] if shape else None
