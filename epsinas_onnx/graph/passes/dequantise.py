"""Turns integer arithmetic back into the float arithmetic that it stands for: scales and zero points are dropped."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.operators import find_operand
from epsinas_onnx.graph.passes.float_rewriter import Dequantised, Rewriter
from epsinas_onnx.graph.passes.integers import HANDLERS
from epsinas_onnx.graph.traversal import StaticValues, all_graphs
from epsinas_onnx.graph.unpacked import CALIBRATED


def dequantise(model: ir.Model) -> Dequantised:
    """Replace the integer arithmetic of `model` by the float arithmetic that it approximates, in place.

    Activations are no longer rounded to integers: under constant weights their calibrated scales mean nothing. A
    quantisation whose zero point is the smallest integer cuts off what is negative, and quantisers leave out the ReLU
    in front of it, so a ReLU takes its place. Integer weights get a DequantizeLinear of scale 1, which makes them
    stored float tensors of the same shape.

    Source: the ONNX specifications of QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear, QLinearConv,
    QLinearMatMul, ConvInteger and MatMulInteger, and ONNX Runtime's of its own operators (com.microsoft).
    """
    done = Dequantised()
    if not any(node.op_type in HANDLERS for graph in all_graphs(model.graph) for node in graph):
        return done
    rewriter = Rewriter(StaticValues.of(model), done, HANDLERS)
    graphs = list(all_graphs(model.graph))
    for graph in graphs:
        for node in graph:
            _mark_calibrated(node, rewriter.static)
    for graph in graphs:
        for node in list(graph):
            rewriter.visit(graph, node)
    for graph in all_graphs(model.graph):
        rewriter.outputs(graph)
    for node in reversed(rewriter.replaced):
        if node.graph is not None and not any(output.uses() or output.is_graph_output() for output in node.outputs):
            node.graph.remove(node, safe=True)
    return done


def _mark_calibrated(node: ir.Node, static: StaticValues) -> None:
    """Mark the scales and zero points of activations, whose nodes go, so that nobody takes them for a weight's."""
    if node.op_type not in HANDLERS or node.domain not in ("", "com.microsoft"):
        return
    for slot, value in enumerate(node.inputs):
        operand = find_operand(node, slot)
        if value is None or operand is None or not ("scale" in operand.name or "zero_point" in operand.name):
            continue
        if operand.of is None or node.inputs[operand.of] not in static:
            value.meta[CALIBRATED] = True
