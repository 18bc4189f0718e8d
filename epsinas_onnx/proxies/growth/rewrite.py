"""Rewrites a graph with drawn weights to one that gives how fast its output grows with all of them."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

import numpy as np
import onnx_ir as ir

from epsinas_onnx.errors import UnsupportedError
from epsinas_onnx.graph.analysis.roles import Role, Use
from epsinas_onnx.graph.emitter import PREFIX
from epsinas_onnx.graph.traversal import node_bodies
from epsinas_onnx.proxies.drawn import DRAWN
from epsinas_onnx.proxies.growth import functions, rules  # noqa: F401 (they register their rules)
from epsinas_onnx.proxies.growth.flow import RULES, Flow, Step, Writer, refused
from epsinas_onnx.proxies.growth.norms import normalised_inputs

_SHAPES = frozenset({"Shape", "Size"})


class Growth(NamedTuple):
    """Two scalars of a graph: c dR/dc at c = 1 is `slope * exp(scale)`, where R is the sum of its first output."""

    slope: ir.Value
    scale: ir.Value


def add_growth(model: ir.Model, name: str, ones: Collection[ir.Value] = ()) -> Growth | None:
    """Append to a graph with drawn weights, in place, what gives its growth; None where no weight reaches its output.

    Drawn weights and embeddings become their magnitudes, normalisations are left out. model: its weights are
    initializers with `DRAWN` in their `meta` (`drawn_graph`). ones: its inputs that will be fed with ones.

    Every value v of the graph is carried as `value * exp(scale)`, divided by its largest magnitude before it could
    leave float32's range, and beside it d v / d log c, which a layer y = W x turns into W x + W x'.

    Raises UnsupportedError with the node that has no rule.
    """
    write = Writer(model.opset_imports.get("", 1), f"{PREFIX}growth.", ones)
    flows = _weights(model)
    needed = _needed(model)
    for node in list(model.graph):
        if node in needed:
            _visit(node, flows, write, name)
    output = flows.get(model.graph.outputs[0])
    if output is None or output.tangent is None:
        return None
    slope = write.total(output.tangent)
    scale = output.scale if output.scale is not None else write.op("Identity", [write.number(0.0)])
    model.graph.extend(write.take())
    return Growth(slope, scale)


def _weights(model: ir.Model) -> dict[ir.Value, Flow]:
    """Turn what is drawn into magnitudes; return the flows of weights, which are their own derivatives by log c."""
    flows = {}
    for value in model.graph.initializers.values():
        use = value.meta.get(DRAWN)
        if isinstance(use, Use):
            value.const_value = _magnitude(value.const_value, str(value.name))
            if use.role is Role.WEIGHT:
                flows[value] = Flow(value, value, positive=True)
    return flows


def _magnitude(tensor: ir.TensorProtocol | None, name: str) -> ir.TensorProtocol | None:
    if tensor is None:
        return None
    return ir.LazyTensor(
        lambda: ir.Tensor(np.abs(tensor.numpy()), name=name), dtype=tensor.dtype, shape=ir.Shape(tensor.shape.numpy()),
        name=name, cache=True,
    )  # fmt: skip


def _needed(model: ir.Model) -> Collection[ir.Node]:
    """Return the nodes that the first output is made of, what only feeds a normalisation's statistics apart."""
    found: dict[ir.Node, None] = {}
    pending = [model.graph.outputs[0]]
    while pending:
        node = pending.pop().producer()
        if node is None or node in found:
            continue
        found[node] = None
        inputs = normalised_inputs(node)
        pending += [value for value in (node.inputs if inputs is None else inputs) if value is not None]
        for body in node_bodies(node):
            pending += _captured(body)
    return found


def _captured(body: ir.Graph) -> list[ir.Value]:
    """Return what a body, and those inside it, read from outside."""
    made = {*body.inputs, *body.initializers.values(), *(output for node in body for output in node.outputs)}
    read = [value for node in body for value in node.inputs if value is not None] + list(body.outputs)
    read += [value for node in body for inner in node_bodies(node) for value in _captured(inner)]
    return [value for value in read if value not in made]


def _visit(node: ir.Node, flows: dict[ir.Value, Flow], write: Writer, name: str) -> None:
    inputs = normalised_inputs(node)
    if inputs is not None:
        given = [flows.get(value, Flow(value)) for value in inputs]
        if any(flow.tangent is not None for flow in given):
            flows[node.outputs[0]] = rules.sum_of(write, given)
        return
    incoming = tuple(None if value is None else flows.get(value) for value in node.inputs)
    captured = [value for body in node_bodies(node) for value in _captured(body)]
    if any(value in flows for value in captured):
        raise refused(name, node, "the weights reach its body, for which there is no rule")
    if node.op_type == "CastLike":
        incoming = (incoming[0], None)
    if all(flow is None for flow in incoming) or (node.op_type in _SHAPES and not node.domain):
        return
    found = RULES.get(node.op_type) if node.domain in ("", "ai.onnx") else None
    if found is None:
        raise _no_rule(name, node)
    given_back = found(Step(node, incoming, write, name))
    made = [given_back] if isinstance(given_back, Flow) else given_back
    flows.update(zip(node.outputs, made, strict=False))


def _no_rule(name: str, node: ir.Node) -> UnsupportedError:
    why = "has no rule of its growth with the weights"
    if node.op_type == "Softmax":
        why = "saturates without the normalisations that are left out, and its derivative is then rounding"
    return refused(name, node, why)
