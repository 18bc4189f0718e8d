"""Walks a list of nodes backwards, and has the rule of each write the gradients of its inputs."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import onnx_ir as ir

from epsinas_onnx.graph.dtypes import FLOATS
from epsinas_onnx.graph.traversal import WITH_BODIES, node_bodies, operands
from epsinas_onnx.proxies.reverse.call import Call
from epsinas_onnx.proxies.reverse.registry import NO_DERIVATIVE, find_rule
from epsinas_onnx.proxies.reverse.scope import Scope

STANDARD = ("", "ai.onnx")


_FIRST_ALONE = frozenset({"CastLike"})
"""Operators that ask their other inputs for a type, and for nothing that has a derivative."""


def backward(
    scope: Scope, nodes: Sequence[ir.Node], seeds: Mapping[ir.Value, ir.Value], wrt: Sequence[ir.Value]
) -> dict[int | ir.Value, ir.Value | None]:
    """Write the gradients of `wrt`, given those of what `nodes` make; nodes: in an order of computation.

    What no path leads to is not in the result. Raises UnsupportedError with the node that has no rule.
    """
    active, targets = _active(nodes, wrt), set(wrt)
    parts: dict[ir.Value, list[ir.Value]] = {v: [gradient] for v, gradient in seeds.items() if v in active}
    for node in reversed(nodes):
        if not any(output in parts for output in node.outputs) or not _differentiable(node):
            continue
        captured = _captured(node, active)
        if not captured and not any(value in active for value in node.inputs):
            continue
        gradients = [_total(scope, output, parts) for output in node.outputs]
        made = find_rule(node)(Call(node, gradients, active, targets, scope, captured))
        for key, gradient in ({0: made} if isinstance(made, ir.Value) else made).items():
            value = node.inputs[key] if isinstance(key, int) else key
            if gradient is not None and value is not None and value in active:
                parts.setdefault(value, []).append(gradient)
    return {value: total for value in wrt if (total := _total(scope, value, parts)) is not None}


def _total(scope: Scope, value: ir.Value, parts: dict[ir.Value, list[ir.Value]]) -> ir.Value | None:
    """Return the sum of the gradients that came together in a value, None where none did."""
    found = parts.get(value)
    if not found:
        return None
    total = found[0]
    for other in found[1:]:
        total = scope.write.op("Add", [total, other])
    if total.shape is None:
        total.shape, total.type = value.shape, value.type
    parts[value] = [total]
    return total


def _active(nodes: Iterable[ir.Node], wrt: Iterable[ir.Value]) -> set[ir.Value]:
    """Return the float values that depend on `wrt` by a path that has a derivative."""
    active = {value for value in wrt if _is_float(value)}
    for node in nodes:
        read = node.inputs[:1] if node.op_type in _FIRST_ALONE else operands(node)
        if _differentiable(node) and any(value in active for value in read):
            active.update(output for output in node.outputs if _is_float(output))
    return active


def _captured(node: ir.Node, active: Collection[ir.Value]) -> list[ir.Value]:
    """Return what bodies of a node read from outside and that is differentiated."""
    if node.op_type not in WITH_BODIES:
        return []
    read = {value: None for body in node_bodies(node) for inner in body.all_nodes() for value in inner.inputs}
    read |= {value: None for body in node_bodies(node) for value in body.outputs}
    return [value for value in read if value is not None and value in active]


def _is_float(value: ir.Value) -> bool:
    return value.dtype is None or value.dtype in FLOATS


def _differentiable(node: ir.Node) -> bool:
    return not (node.op_type in NO_DERIVATIVE and node.domain in STANDARD)
