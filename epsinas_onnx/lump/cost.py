"""Estimates what a lowered graph costs: its multiply-adds, and its memory."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np
import onnx_ir as ir

from epsinas_onnx.graph.traversal import RANDOM
from epsinas_onnx.lump.graph import Body, LoweredGraph, Node, reads
from epsinas_onnx.lump.value import Tensor
from epsinas_onnx.multiply_adds.call import Body as CalledBody
from epsinas_onnx.multiply_adds.call import Call, Operand
from epsinas_onnx.multiply_adds.total import MultiplyAdds, added_up


def peak_bytes(graph: LoweredGraph, outputs: Sequence[Tensor]) -> tuple[int, str]:
    """Return the most bytes that live tensors of one run take together, and the name of the largest tensor."""
    live = graph.live_nodes(outputs)
    end = len(live)
    owner: dict[Tensor, Tensor] = {}  # a reshape shares the memory of its operand, which lives as long as it does
    last: dict[Tensor, int] = {}
    for index, node in enumerate(live):
        for tensor in reads(node):
            last[owner.get(tensor, tensor)] = index
        if node.op_type == "Reshape" and node.inputs[0] is not None:
            owner[node.outputs[0]] = owner.get(node.inputs[0], node.inputs[0])
    for tensor in outputs:
        last[owner.get(tensor, tensor)] = end
    change = [0] * (end + 2)
    largest, name = 0, ""
    for tensor in graph.inputs:
        change[0] += _bytes(tensor)
        largest, name = max((largest, name), (_bytes(tensor), tensor.name))
    for index, node in enumerate(live):
        if node.op_type == "Reshape":
            continue
        for tensor in node.outputs:
            size = _bytes(tensor)
            largest, name = max((largest, name), (size, tensor.name))
            change[index] += size
            change[last.get(tensor, index) + 1] -= size
    peak = current = 0
    for delta in change:
        current += delta
        peak = max(peak, current)
    return peak, name


def multiply_adds(graph: LoweredGraph, outputs: Sequence[Tensor]) -> MultiplyAdds:
    """Return the multiply-adds of a lowered graph, by the table that the user's is counted by.

    What is computed from stored tensors alone is computed once for a session, and does not count.
    """
    stored = {*graph.initializers, *graph.derived}
    return added_up(_calls(graph, graph.live_nodes(outputs), stored))


def _calls(graph: LoweredGraph, nodes: Iterable[Node], stored: set[Tensor]) -> list[Call]:
    calls = []
    for node in nodes:
        if not node.bodies and node.op_type not in RANDOM and all(t is None or t in stored for t in node.inputs):
            stored.update(node.outputs)
            continue
        operands = [None if t is None else Operand(t.shape, graph.initializers.get(t)) for t in node.inputs]
        attributes = {
            name: value.value if isinstance(value, ir.Attr) else value
            for name, value in node.attributes.items()
            if name not in node.bodies
        }
        inner = [CalledBody(_calls(graph, body.nodes, stored), _endless(graph, body)) for body in node.bodies.values()]
        shapes = [tensor.shape for tensor in node.outputs]
        calls.append(Call(node.source, node.op_type, node.domain, operands, shapes, attributes, inner, graph.opset))
    return calls


def _endless(graph: LoweredGraph, body: Body) -> bool:
    """Whether a loop's body hands its condition on as it was given, or says true."""
    if len(body.inputs) < 2 or not body.outputs:
        return False
    condition = body.outputs[0]
    known = graph.initializers.get(condition)
    return condition is body.inputs[1] or (known is not None and bool(np.all(known)))


def _bytes(tensor: Tensor) -> int:
    return math.ceil(tensor.elements * tensor.dtype.itemsize) if tensor.shape is not None else 0
