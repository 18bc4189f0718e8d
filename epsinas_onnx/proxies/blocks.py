"""Finds the features of a network: what each of its blocks gives, whatever the blocks are made of.

A value is a *cut* where every way from the input to the output leads through it: the sum at the end of a residual block
is one, what lies on one of its branches is none. Between two cuts that follow each other lies a region. A block ends
with the last cut before the next region with a layer (a weight that sums), so that normalisation, activation and
pooling belong to the layer in front of them. The last block, which ends in the output, is the head and gives no
features. Where a block ends in several cuts, the last that still has positions is taken, since pooling over all of them
and flattening are of the head.
"""

from __future__ import annotations

import math
from collections.abc import Collection

import onnx_ir as ir

from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.traversal import operands


def block_features(model: ir.Model, inputs: Collection[ir.Value], layers: Collection[ir.Node]) -> list[ir.Value]:
    """Return what each block gives, in order, the head apart.

    inputs: those of the graph in which samples differ. layers: nodes of the main graph that have a weight.
    """
    nodes, cuts = _cuts(model, inputs)
    place = {node: index for index, node in enumerate(nodes)}
    layered = sorted(place[node] for node in layers if node in place)
    groups: list[list[ir.Value]] = []
    before = 0
    for cut in cuts:
        producer = cut.producer()
        end = place[producer] + 1 if producer is not None else 0
        if not groups or any(before <= index < end for index in layered):
            groups.append([])
        groups[-1].append(cut)
        before = end
    named = [group for group in groups if group[0].producer() is not None and before]
    first_is_input = bool(groups) and groups[0][0].producer() is None
    blocks = named if not first_is_input else groups[1:]
    return [_with_positions(group) for group in blocks[:-1]]


def _cuts(model: ir.Model, inputs: Collection[ir.Value]) -> tuple[list[ir.Node], list[ir.Value]]:
    """Return the nodes between inputs and the first output, and the cuts among their values, both in order."""
    graph = model.graph
    signal: set[ir.Value] = set(inputs)
    reached: list[ir.Node] = []
    for node in graph:
        if node.op_type not in ("Shape", "Size") and any(value in signal for value in operands(node)):
            signal.update(node.outputs)
            reached.append(node)
    output = graph.outputs[0]
    needed: set[ir.Value] = {output}
    nodes: list[ir.Node] = []
    for node in reversed(reached):
        if any(value in needed for value in node.outputs):
            needed.update(value for value in operands(node) if value in signal)
            nodes.append(node)
    nodes.reverse()
    made = {value: -1 for value in inputs if value in needed}
    last: dict[ir.Value, int] = {}
    for index, node in enumerate(nodes):
        for value in operands(node):
            if value in needed:
                last[value] = index
        made.update((value, index) for value in node.outputs if value in needed)
    last[output] = len(nodes)
    # What spans a place is made before it and needed behind it; a value alone in what spans its place is a cut.
    spanning = [0] * (len(nodes) + 2)
    for value, start in made.items():
        spanning[start + 1] += 1
        spanning[last.get(value, start) + 1] -= 1
    count, alone = 0, []
    for index in range(len(nodes) + 1):
        count += spanning[index]
        alone.append(count == 1)
    return nodes, [value for value, start in made.items() if alone[start + 1]]


def _with_positions(group: list[ir.Value]) -> ir.Value:
    """Return the last of some values that has several positions, or the last of all."""
    for value in reversed(group):
        shape = known_shape(value)
        if shape is not None and len(shape) > 2 and math.prod(shape[2:]) > 1:
            return value
    return group[-1]
