"""Counts the multiply-adds of a user's model, with shapes that inference finds and, where it does not, lumping."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.analysis.input_spec import InputSpec
from epsinas_onnx.graph.analysis.roles import RoleDecisions
from epsinas_onnx.graph.analysis.shapes import fixed_batch_size, known_shape
from epsinas_onnx.graph.traversal import RANDOM, needed_nodes, node_bodies
from epsinas_onnx.lump.lower import LumpedModel, Unlumpable, lump
from epsinas_onnx.lump.step import Target
from epsinas_onnx.lump.value import Array
from epsinas_onnx.multiply_adds.call import Body, Call, Dims, Operand
from epsinas_onnx.multiply_adds.total import MultiplyAdds, added_up

__all__ = ["MultiplyAdds", "count_multiply_adds", "minibatch_multiply_adds"]

_SMALL = 16
"""Stored tensors of up to this many entries are read: conditions, trip counts and lengths."""


def count_multiply_adds(
    model: ir.Model, name: str, specs: Sequence[InputSpec], decisions: RoleDecisions
) -> MultiplyAdds:
    """Count the multiply-adds for one sample of a model whose shapes are concrete for one.

    What is computed from stored tensors alone is computed once and not for every sample, so it does not count; nor
    does what no output needs.
    """
    lumped = None
    with contextlib.suppress(Unlumpable, ModelError):
        lumped = lump(model, decisions, specs, name, Target())
    found = minibatch_multiply_adds(model, lumped)
    return found._replace(total=found.total // (fixed_batch_size(specs) or 1))


def minibatch_multiply_adds(model: ir.Model, lumped: LumpedModel | None) -> MultiplyAdds:
    """Count the same for the minibatch that the shapes of a model are for; lumped: its lumped form, if it has one."""
    return added_up(_Viewer(model, lumped).calls(model.graph))


class _Viewer:
    """Shows nodes of the user's graph to the count. stored: values that are computed from stored tensors alone."""

    def __init__(self, model: ir.Model, lumped: LumpedModel | None) -> None:
        self._opset = model.opset_imports.get("", 1)
        self._inner = {} if lumped is None else lumped.inner
        self._outer = {} if lumped is None else lumped.values
        self._stored: set[ir.Value] = set()

    def calls(self, graph: ir.Graph) -> list[Call]:
        self._stored.update(graph.initializers.values())
        for node in graph:
            repeatable = node.op_type not in RANDOM and not node_bodies(node)
            if repeatable and all(value is None or value in self._stored for value in node.inputs):
                self._stored.update(node.outputs)
        needed = needed_nodes(graph)
        return [
            self._call(node)
            for node in graph
            if node in needed and any(output not in self._stored for output in node.outputs)
        ]

    def _call(self, node: ir.Node) -> Call:
        operands = [None if value is None else Operand(self._shape(value), self._value(value)) for value in node.inputs]
        outputs = [self._shape(value) for value in node.outputs]
        attributes = {
            name: attribute.value
            for name, attribute in node.attributes.items()
            if not attribute.is_ref() and attribute.type not in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)
        }
        bodies = [Body(self.calls(body), self._endless(node, body)) for body in node_bodies(node)]
        return Call(str(node.name), node.op_type, node.domain, operands, outputs, attributes, bodies, self._opset)

    def _shape(self, value: ir.Value) -> Dims | None:
        lumped = next((v[value] for v in (self._inner, self._outer) if value in v and v[value].parts is not None), None)
        shape = known_shape(value) if lumped is None else lumped.shape
        # A window that is larger than its input leaves less than nothing.
        return None if shape is None or min(shape, default=0) < 0 else shape

    def _value(self, value: ir.Value) -> Array | None:
        found = self._outer.get(value)
        if found is not None and found.known is not None and found.known.size <= _SMALL:
            return found.known
        tensor = ir.convenience.get_const_tensor(value)
        if tensor is None or tensor.size > _SMALL or tensor.dtype == ir.DataType.STRING:
            return None
        with contextlib.suppress(ModelError, ValueError, TypeError):  # it may be a weight, whose file need not be there
            return np.asarray(tensor.numpy())
        return None

    def _endless(self, node: ir.Node, body: ir.Graph) -> bool:
        """Whether a loop's body hands its condition on as it was given, or says true."""
        if node.op_type != "Loop" or len(body.inputs) < 2 or not body.outputs:
            return False
        value: ir.Value | None = body.outputs[0]
        while value is not None:
            if value is body.inputs[1] or (value in node.inputs[1:2]):
                return True
            found = self._inner.get(value)
            array = self._value(value) if found is None or found.known is None else found.known
            if array is not None:
                return bool(np.all(array))
            producer = value.producer()
            layout = producer is not None and producer.op_type in ("Identity", "Cast", "Squeeze", "Reshape")
            value = producer.inputs[0] if producer is not None and layout else None
        return False
