"""Finds how large a vocabulary an integer input indexes, by following it to the table it looks up."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.tensor_summary import read
from epsinas_onnx.graph.traversal import node_bodies

_PASSES_ON = frozenset(
    {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Slice", "Expand", "Tile", "Concat",
     "Split", "Clip", "Where", "Loop", "Scan", "If"}
)  # fmt: skip
_TABLE_SLOT = {
    "Gather": (0, 1),
    "GatherElements": (0, 1),
    "GatherBlockQuantized": (0, 1),
    "EmbedLayerNormalization": (2, 0),
}


def token_bound(value: ir.Value) -> int | None:
    """Return the smallest table that `value`'s entries index, None where they index none of known size."""
    bounds: list[int] = []
    seen: set[ir.Value] = {value}
    pending = [value]
    while pending:
        current = pending.pop()
        for use in current.uses():
            node = use.node
            bound = _bound(node, use.idx)
            if bound is not None:
                bounds.append(bound)
            elif node.op_type in _PASSES_ON or _selects(node):
                reached = [*node.outputs, *(i for body in node_bodies(node) for i in body.inputs)]
                pending += [output for output in reached if output not in seen]
                seen.update(reached)
    return min(bounds, default=None)


def _selects(node: ir.Node) -> bool:
    """Whether a node may be part of a choice written as arithmetic, index * (index >= 0) + ..., and is no offset."""
    if node.op_type == "Mul":
        return True
    stored = (value is None or ir.convenience.get_const_tensor(value) is not None for value in node.inputs)
    return node.op_type == "Add" and not any(stored)


def _bound(node: ir.Node, slot: int) -> int | None:
    if node.op_type == "OneHot" and slot == 0:
        depth = None if node.inputs[1] is None else ir.convenience.get_const_tensor(node.inputs[1])
        number = None if depth is None or depth.size != 1 else read(depth)
        return None if number is None else int(number.reshape(-1)[0])
    table_slot, index_slot = _TABLE_SLOT.get(node.op_type, (0, -1))
    table = node.inputs[table_slot] if slot == index_slot else None
    shape = None if table is None else known_shape(table)
    if not shape:
        return None
    axis = "gather_axis" if node.op_type == "GatherBlockQuantized" else "axis"
    return shape[int(node.attributes.get_int(axis, 0))]
