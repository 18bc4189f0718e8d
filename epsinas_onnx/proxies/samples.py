"""Tells whether samples of a network may lie along another axis than the first."""

from __future__ import annotations

from epsinas_onnx.graph.traversal import StaticValues
from epsinas_onnx.scoring.plan import ModelPlan


def may_be_moved(planned: ModelPlan) -> bool:
    """Whether an input or a node puts samples elsewhere, as where time comes first."""
    if any(spec.batch_axis for spec in planned.specs):
        return True
    static = StaticValues.of(planned.model)
    return any(
        node.op_type == "Transpose"
        and node.inputs[0] not in static
        and list(node.attributes.get_ints("perm", [-1]))[:1] != [0]
        for node in planned.model.graph
    )
