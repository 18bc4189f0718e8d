"""Tells which stored tensors are learned everywhere they are used, so that their values decide nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx.graph.analysis.roles import RoleDecisions, Use
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.operators import Operand, Part, Role, find_operand, is_packed
from epsinas_onnx.graph.traversal import StaticValues, all_graphs, fills, node_bodies
from epsinas_onnx.graph.unpacked import CALIBRATED, stands_for

LEARNED = frozenset({Role.WEIGHT, Role.BIAS, Role.STATISTICS, Role.EMBEDDING})
# What reads the shape or the element type of an operand, and not its values.
_BY_TYPE = frozenset({("CastLike", 1), ("EyeLike", 0), ("RandomNormalLike", 0), ("RandomUniformLike", 0)})


@dataclass(frozen=True)
class Learned:
    """A stored tensor that every user learns: its first use decides what it is filled with.

    part: what it is of a packed tensor, None where it is none. bits: of an entry of that packed tensor.
    """

    value: ir.Value
    use: Use
    part: Part | None = None
    bits: int = 8


def learned_tensors(model: ir.Model, decisions: RoleDecisions, static: StaticValues) -> dict[str, Learned]:
    """Return, by name, the tensors that are used as weights, biases, statistics or embeddings and as nothing else.

    These are initializers of any graph of the model, and outputs of its Constant and ConstantOfShape nodes and of Tiles
    that stand for the latter. The packed entries of a weight, their scales and zero points count like the weight. Where
    the branches of an If have tensors of one name, it counts if all of them are learned.
    """
    graphs = list(all_graphs(model.graph))
    named = {str(value.name): value for graph in graphs for value in graph.initializers.values()}
    named |= {str(output.name): output for graph in graphs for node in graph for output in node.outputs}
    judge = _Judge({(use.node, use.slot): use for use in decisions.uses}, static, named)
    found: dict[str, Learned] = {}
    kept: set[str] = set()
    for graph in graphs:
        made = [output for node in graph if _is_filled(node) for output in node.outputs]
        for value in (*graph.initializers.values(), *made):
            learned = judge.learned(value) if value.name else None
            if learned is not None:
                found[str(value.name)] = learned
            elif value.name:
                kept.add(value.name)
    return {name: learned for name, learned in found.items() if name not in kept}


def _is_filled(node: ir.Node) -> bool:
    return node.domain == "" and (node.op_type in ("Constant", "ConstantOfShape") or fills(node))


@dataclass(frozen=True)
class _Found:
    """A value that is made of the tensor that is judged. part: what it is of a packed tensor, by the way there."""

    value: ir.Value
    part: Part | None
    bits: int


class _Judge:
    """Follows stored tensors to their uses. named: the values of the model, by name."""

    def __init__(
        self, roles: Mapping[tuple[ir.Node, int], Use], static: StaticValues, named: Mapping[str, ir.Value]
    ) -> None:
        self.roles, self.static, self.named = roles, static, named

    def learned(self, value: ir.Value) -> Learned | None:
        """Return the first use of a tensor, or of what is made of it alone, where all of them are learned."""
        first: Learned | None = None
        pending = [_Found(value, None, 8)]
        seen = set(pending)
        while pending:
            current = pending.pop()
            if current.value.is_graph_output() or CALIBRATED in current.value.meta:
                return None
            new = list(self._became(current))
            for usage in current.value.uses():
                if usage.node.op_type in ("Shape", "Size") or (usage.node.op_type, usage.idx) in _BY_TYPE:
                    continue
                further = self._use(value, current, usage.node, usage.idx)
                if further is None:
                    return None
                if isinstance(further, Learned):
                    first = first or further
                else:
                    new += further
            pending += [found for found in new if found not in seen]
            seen.update(new)
        return first

    def _became(self, current: _Found) -> Iterator[_Found]:
        """Yield the float values that took a packed tensor's place, or the place of what a scale belongs to."""
        for unpacked in stands_for(current.value):
            if unpacked.name in self.named:
                yield _Found(self.named[unpacked.name], current.part or unpacked.part, unpacked.bits)

    def _use(self, value: ir.Value, current: _Found, node: ir.Node, slot: int) -> Learned | list[_Found] | None:
        """Return how a node learns a value, or what it makes of it; None where its values decide something."""
        operand = find_operand(node, slot)
        own = self._part(operand, node)
        part = current.part or own
        use = self.roles.get((node, slot))
        if use is not None:
            learns = use.role in LEARNED and (current.part is not None or value in use.stored)
            return Learned(value, use, part, current.bits) if learns else None
        if node_bodies(node):
            return None
        if operand is not None and (own is Part.PACKED or (is_packed(node) and operand.what in (*LEARNED, own))):
            role = operand.what if isinstance(operand.what, Role) else Role.WEIGHT
            rule = f"operator: {node.op_type} input {slot}"
            use = Use(node, slot, current.value, known_shape(current.value), role, rule, (value,))
            return Learned(value, use, part, current.bits)
        if not all(output in self.static for output in node.outputs):
            return None  # a use that has no role: integers, or a formula
        bits = current.bits if own is None else _bits(node.inputs[0])
        return [_Found(output, part, bits) for output in node.outputs]

    def _part(self, operand: Operand | None, node: ir.Node) -> Part | None:
        """Return what an operand is of a packed tensor, None where that is computed from the input."""
        if operand is None or not isinstance(operand.what, Part):
            return None
        return operand.what if operand.of is None or node.inputs[operand.of] in self.static else None


def _bits(packed: ir.Value | None) -> int:
    return 8 if packed is None or packed.dtype is None else packed.dtype.bitwidth
