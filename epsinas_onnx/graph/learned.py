"""Tells which stored tensors are learned everywhere they are used, so that their values decide nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.graph.roles import Role, RoleDecisions, Use
from epsinas_onnx.graph.static import StaticValues, all_graphs, node_bodies

LEARNED = frozenset({Role.WEIGHT, Role.BIAS, Role.STATISTICS, Role.EMBEDDING})
# What reads the shape or the element type of an operand, and not its values.
_BY_TYPE = frozenset({("CastLike", 1), ("EyeLike", 0), ("RandomNormalLike", 0), ("RandomUniformLike", 0)})
_FILLED = ("Constant", "ConstantOfShape")


@dataclass(frozen=True)
class Learned:
    """A stored tensor that every user learns: its first use decides what it is filled with.

    whole: whether the use reads the tensor itself, rather than something that is made of it.
    """

    value: ir.Value
    use: Use
    whole: bool


def learned_tensors(model: ir.Model, decisions: RoleDecisions, static: StaticValues) -> dict[str, Learned]:
    """Return, by name, the tensors that are used as weights, biases, statistics or embeddings and as nothing else.

    These are initializers of any graph of the model, and outputs of its Constant and ConstantOfShape nodes. Where the
    branches of an If have tensors of one name, it counts if all of them are learned.
    """
    roles = {(use.node, use.slot): use for use in decisions.uses}
    found: dict[str, Learned] = {}
    kept: set[str] = set()
    for graph in all_graphs(model.graph):
        made = [output for node in graph if node.op_type in _FILLED and node.domain == "" for output in node.outputs]
        for value in (*graph.initializers.values(), *made):
            use = _only_learned(value, roles, static)
            if use is None:
                kept.add(str(value.name))
            elif value.name:
                found[str(value.name)] = Learned(value, use, use.value is value)
    return {name: learned for name, learned in found.items() if name not in kept}


def _only_learned(value: ir.Value, roles: Mapping[tuple[ir.Node, int], Use], static: StaticValues) -> Use | None:
    """Return the first use of a tensor, or of what is made of it alone, where all of them are learned."""
    first: Use | None = None
    pending, seen = [value], {value}
    while pending:
        current = pending.pop()
        if current.is_graph_output():
            return None
        for usage in current.uses():
            node, slot = usage.node, usage.idx
            if node.op_type in ("Shape", "Size") or (node.op_type, slot) in _BY_TYPE:
                continue
            use = roles.get((node, slot))
            if use is None and node_bodies(node):
                return None
            if use is not None and not (use.role in LEARNED and value in use.stored):
                return None
            if use is None and not all(output in static for output in node.outputs):
                return None  # a use that has no role: integers, or a formula
            if use is None:
                new = [output for output in node.outputs if output not in seen]
                seen.update(new)
                pending += new
            else:
                first = first or use
    return first
