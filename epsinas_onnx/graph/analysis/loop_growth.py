"""Tells how large the values grow that a Loop hands from one turn to the next, before it runs."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx_ir as ir

from epsinas_onnx.graph.constant_tensor import node_proto
from epsinas_onnx.graph.output_sizes import Known, Operands, outcome
from epsinas_onnx.graph.traversal import node_bodies

_TURNS = 64
"""Turns that are followed: what doubles fills any memory by then, and what grows by steps goes on as it did."""


def grown(
    node: ir.Node, operands: Operands, around: Callable[[ir.Value], Known | None], imports: Mapping[str, int]
) -> list[Known]:
    """Return what is known of each output of a Loop of which it is known how often it turns; nothing of another.

    operands: its own. around: what is known of a value outside of the body.
    """
    body = node.attributes["body"].as_graph()
    trips = None if not operands or operands[0] is None else operands[0].array
    carried = [Known(ir.DataType.FLOAT, None) if each is None else each for each in operands[2:]]
    if trips is None or trips.size != 1 or len(body.inputs) != len(carried) + 2 or len(body.outputs) <= len(carried):
        return [Known(ir.DataType.FLOAT, None) for _ in node.outputs]
    turns = int(trips.reshape(-1)[0])
    protos = [(each, node_proto(each)) for each in body if not node_bodies(each)]
    steps = [0] * len(carried)
    for _ in range(min(turns, _TURNS)):
        after = _turn(body, protos, carried, around, imports)
        steps = [(new.most or 0) - (old.most or 0) for new, old in zip(after, carried, strict=True)]
        carried = after
        if not any(steps):
            break
    rest = max(0, turns - _TURNS)
    ended = [
        Known(each.dtype, None, None, None if each.most is None else each.most + max(0, step) * rest)
        for each, step in zip(carried, steps, strict=True)
    ]
    return [*ended, *(Known(ir.DataType.FLOAT, None) for _ in node.outputs[len(ended) :])]


def _turn(
    body: ir.Graph, protos: Sequence[tuple[ir.Node, onnx.NodeProto]], carried: Sequence[Known],
    around: Callable[[ir.Value], Known | None], imports: Mapping[str, int],
) -> list[Known]:  # fmt: skip
    """Return what is known of the carried values after one turn."""
    found: dict[ir.Value, Known] = dict(zip(body.inputs[2:], carried, strict=True))

    def known(value: ir.Value | None) -> Known | None:
        if value is None:
            return None
        inside = found.get(value) or _stored(value)
        return inside or (None if value.graph is body else around(value)) or Known(ir.DataType.FLOAT, None)

    for node, proto in protos:
        found.update(zip(node.outputs, outcome(proto, [known(value) for value in node.inputs], imports), strict=False))
    after = [known(value) for value in body.outputs[1 : len(carried) + 1]]
    # Entries differ from turn to turn.
    return [Known(each.dtype, each.shape, None, each.most) for each in after if each is not None]


def _stored(value: ir.Value) -> Known | None:
    tensor = ir.convenience.get_const_tensor(value)
    if tensor is None:
        return None
    shape = tuple(int(dim) for dim in tensor.shape)  # type: ignore[arg-type]
    return Known(tensor.dtype, shape, None, math.prod(shape))
