"""Counts the multiply-adds of a user's model, with shapes that inference finds and, where it does not, lumping."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.roles import RoleDecisions
from epsinas_onnx.graph.analysis.shapes import fixed_batch_size, known_shape
from epsinas_onnx.graph.traversal import node_bodies
from epsinas_onnx.lump.cost import MULTIPLYING, products
from epsinas_onnx.lump.lower import lump
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.value import Lumped
from epsinas_onnx.lump.walk import Unlumpable


class MultiplyAdds(NamedTuple):
    """How many there are, and the first node that could not be counted, since a shape is unknown; None where all were.

    Those of convolutions, matrix products and recurrences; of the branches of an If the costlier one counts, the body
    of a loop once.
    """

    total: int
    uncounted: str | None = None

    @property
    def known(self) -> int | None:
        """How many there are, None where not all could be counted."""
        return self.total if self.uncounted is None else None


def count_multiply_adds(
    model: ir.Model, name: str, specs: Sequence[InputSpec], decisions: RoleDecisions
) -> MultiplyAdds:
    """Count the multiply-adds for one sample of a model whose shapes are concrete for one."""
    values: Mapping[ir.Value, Lumped] = {}
    with contextlib.suppress(Unlumpable, ModelError):
        values = lump(model, decisions, specs, name, Target()).values
    found = _in_graph(model.graph, values)
    return MultiplyAdds(found.total // (fixed_batch_size(specs) or 1), found.uncounted)


def node_multiply_adds(node: ir.Node, values: Mapping[ir.Value, Lumped]) -> int | None:
    """Return the multiply-adds of one node, bodies left out, 0 for other operators, and None where a shape is unknown.

    values: what lumping made of values, where it did.
    """
    if node.op_type not in MULTIPLYING or not node.outputs:
        return 0
    operands = [None if value is None else _shape(value, values) for value in node.inputs]
    output = _shape(node.outputs[0], values)
    if output is None and node.outputs[0].uses():
        return None
    if any(value is not None and shape is None for value, shape in zip(node.inputs[:2], operands, strict=False)):
        return None
    return products(node.op_type, operands, output)


def _in_graph(graph: ir.Graph, values: Mapping[ir.Value, Lumped]) -> MultiplyAdds:
    total, uncounted = 0, None
    for node in graph:
        own = node_multiply_adds(node, values)
        if own is None:
            uncounted = uncounted or f"{str(node.name)!r} ({node.op_type})"
        bodies = [_in_graph(body, values) for body in node_bodies(node)]
        uncounted = uncounted or next((body.uncounted for body in bodies if body.uncounted), None)
        costs = [body.total for body in bodies]
        total += (own or 0) + (max(costs, default=0) if node.op_type == "If" else sum(costs))
    return MultiplyAdds(total, uncounted)


def _shape(value: ir.Value, values: Mapping[ir.Value, Lumped]) -> tuple[int, ...] | None:
    shape = known_shape(value)
    found = values.get(value)
    if shape is None and found is not None and found.parts is not None:
        return found.shape
    return shape
