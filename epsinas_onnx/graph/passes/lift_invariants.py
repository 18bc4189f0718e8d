"""Takes out of loops what they carry along unchanged, so that weights are seen where they are used."""

from __future__ import annotations

import onnx_ir as ir

from epsinas_onnx.graph.traversal import all_graphs


def free_invariants(model: ir.Model) -> None:
    """Let the bodies of Loop and Scan capture, in place, what they hand on unchanged from one turn to the next.

    tf2onnx and others pass the weights of a recurrent cell into its loop as a state that never changes. The body reads
    the value from outside instead, and so does whoever reads it behind the loop (ONNX operator specifications of Loop
    and Scan: a state is what the last turn gave, or what it was at first).
    """
    for graph in list(all_graphs(model.graph)):
        for node in list(graph):
            if node.op_type in ("Loop", "Scan") and node.domain == "":
                _free(graph, node)


def _free(graph: ir.Graph, node: ir.Node) -> None:
    body = node.attributes["body"].as_graph()
    first = 2 if node.op_type == "Loop" else 0  # a Loop's first operands are its count and its condition
    beside = 1 if node.op_type == "Loop" else 0  # its body's first output is the condition
    carried = len(node.inputs) - first
    if node.op_type == "Scan":
        carried -= node.attributes.get_int("num_scan_inputs", 0)
    positions = []
    for index in range(carried):
        inside = body.inputs[first + index]
        copies = [position for position, value in enumerate(body.outputs) if _source(value) is inside]
        if node.inputs[first + index] is not None and copies == [beside + index]:
            positions.append(index)
    if not positions:
        return
    for index in reversed(positions):
        inside, outside = body.inputs[first + index], node.inputs[first + index]
        assert outside is not None
        body.outputs.pop(beside + index)
        inside.replace_all_uses_with(outside)
        node.outputs[index].replace_all_uses_with(outside, replace_graph_outputs=True)
        body.inputs.pop(first + index)
    kept = [value for index, value in enumerate(node.outputs) if index not in positions]
    inputs = [value for index, value in enumerate(node.inputs) if index - first not in positions]
    made = ir.Node(
        node.domain, node.op_type, inputs, [], name=node.name, num_outputs=len(kept), metadata_props=node.metadata_props
    )
    for old, new in zip(kept, made.outputs, strict=True):
        new.name, new.type, new.shape = old.name, old.type, old.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    attributes = list(node.attributes.values())
    graph.insert_before(node, made)
    graph.remove(node, safe=True)
    for attribute in attributes:
        made.attributes.add(attribute)


def _source(value: ir.Value) -> ir.Value:
    """Return what a value is a copy of."""
    node = value.producer()
    while node is not None and node.op_type == "Identity" and node.domain == "" and node.inputs[0] is not None:
        value = node.inputs[0]
        node = value.producer()
    return value
