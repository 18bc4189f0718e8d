"""Owns which values an explanation lists, in bodies too: in which order, what feeds each, how deep, and its share."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple

import onnx_ir as ir

from epsinas_onnx.explanation import sight
from epsinas_onnx.explanation.nested import Nested, Place, bodies, node_count
from epsinas_onnx.explanation.observing import Seen
from epsinas_onnx.explanation.result import ExplainedValue
from epsinas_onnx.explanation.shares import Step, shares
from epsinas_onnx.graph.analysis.shapes import known_shape
from epsinas_onnx.graph.passes.constant_weights import REPLACES
from epsinas_onnx.graph.traversal import node_bodies, operands
from epsinas_onnx.scoring.judged import Task

_MEASURES = ("Shape", "Size")
"""Operators behind which nothing follows from the values of an input."""


class Listed(NamedTuple):
    """The values, and the dispersion of the output.

    unobserved, not_taken: how many nodes in bodies were not seen, and how many lie in branches that were not taken.
    """

    values: tuple[ExplainedValue, ...]
    dispersion: float | None
    unobserved: int
    not_taken: int


def listed(task: Task, nested: Nested, seen: sight.Sight, score: float | None) -> Listed:
    """Return every value that follows from an input, with its share of the score."""
    looked_into = _Bodies(nested, seen.everything)
    states: set[ir.Value] = set()
    while True:
        found, follows = _found(task, nested, seen, looked_into, states)
        # A state that is the same for all samples at first may follow from an input in later turns.
        more = {
            place.value
            for place in nested.places()
            if place.given and place.name not in found
            and (carried := nested.carried_from(place.value)) is not None and nested.names.get(carried) in found
        }  # fmt: skip
        if not more:
            break
        states |= more
    values, dispersion = _with_shares(found, [name for name in task.planned.outputs if name in found], score)
    unobserved = looked_into.unobserved + sum(not observed for observed in follows.values())
    return Listed(values, dispersion, unobserved, looked_into.not_taken)


def _found(
    task: Task, nested: Nested, seen: sight.Sight, looked_into: _Bodies, states: Collection[ir.Value]
) -> tuple[dict[str, ExplainedValue], dict[ir.Node, bool]]:
    """Return the values that follow from an input, and of each node in a body whether any value of it was seen.

    states: what bodies are given that follows from an input in later turns alone, and so is fed by nothing.
    """
    everything = seen.everything
    found: dict[str, ExplainedValue] = {}
    for name, one in sight.of_inputs(task).items():
        found[name] = ExplainedValue(name, "", "Input", 0, one.shape, None, (), one.observed, one.dispersion)
    follows: dict[ir.Node, bool] = {}
    for place in nested.places():
        if place.value.graph in looked_into.left_out:
            continue
        feeding = [nested.names[v] for v in nested.feeding(place, looked_into.left_out)]
        if not place.given and not any(name in found for name in feeding):
            feeding = [nested.names[v] for v in operands(place.node)]  # what decides how often a body runs
        feeding = [name for name in dict.fromkeys(feeding) if name in found]
        around = feeding
        if not feeding and place.value in states:
            around = [name for v in operands(place.node) if (name := nested.names[v]) in found]
        elif not feeding or place.node.op_type in _MEASURES:
            continue
        known = everything.get(place.name)
        if place.holders and not place.given and place.name not in seen.inside.independent:
            follows[place.node] = follows.get(place.node, False) or known is not None
        depth = 1 + max((found[name].depth for name in around), default=0)
        found[place.name] = _explained(place, known, feeding, depth)
    return found, follows


class _Bodies:
    """Which bodies are left out: of an If the branch that was not taken, and those of which no value was seen.

    unobserved, not_taken: how many nodes lie in them.
    """

    def __init__(self, nested: Nested, seen: Collection[str]) -> None:
        self.left_out: set[ir.Graph] = set()
        self.unobserved = self.not_taken = 0
        self._seen: dict[ir.Graph, bool] = {}
        for place in nested.places():
            graph = place.value.graph if place.given else place.node.graph
            while place.name in seen and isinstance(graph, ir.Graph) and not self._seen.get(graph):
                self._seen[graph] = True
                graph = nested.holder_of[graph][0].graph if graph in nested.holder_of else None
        self._look(nested.graph)

    def _look(self, graph: ir.Graph) -> None:
        for node in graph:
            held = [body for _, body in bodies(node)]
            any_seen = any(self._seen.get(body) for body in held)
            for body in held:
                if self._seen.get(body):
                    self._look(body)
                    continue
                self._leave_out(body)
                if any_seen:
                    self.not_taken += node_count(body)
                else:
                    self.unobserved += node_count(body)
            if not held:
                self.unobserved += sum(map(node_count, node_bodies(node)))

    def _leave_out(self, graph: ir.Graph) -> None:
        self.left_out.add(graph)
        for node in graph:
            for _, body in bodies(node):
                self._leave_out(body)


def _explained(place: Place, known: Seen | None, feeding: Sequence[str], depth: int) -> ExplainedValue:
    shape = known_shape(place.value) if known is None or known.shape is None else known.shape
    return ExplainedValue(
        place.name, str(place.node.name), f"{place.node.op_type} input" if place.given else operator_of(place.node),
        depth, None if shape is None else tuple(shape), None if known is None else known.classes, tuple(feeding),
        (None, None) if known is None else known.observed, None if known is None else known.dispersion,
        inside=tuple(str(node.name) for node in place.holders),
    )  # fmt: skip


def _with_shares(
    found: Mapping[str, ExplainedValue], outputs: Sequence[str], score: float | None
) -> tuple[tuple[ExplainedValue, ...], float | None]:
    known = [one for name in outputs if (one := found[name].dispersion) is not None]
    dispersion = sum(known) / len(known) if known else None
    if not score or not dispersion or len(known) < len(outputs):
        return tuple(found.values()), dispersion
    steps = {
        name: Step(
            one.operator, one.operands, one.dispersion,
            [None if seen is None else seen.variation for seen in one.observed],
        )
        for name, one in found.items()
    }  # fmt: skip
    parts = shares(steps, outputs)
    return tuple(dataclasses.replace(one, share=parts[name] / dispersion) for name, one in found.items()), dispersion


def operator_of(node: ir.Node) -> str:
    """Return the operator that a node has in the user's file."""
    return str(node.meta.get(REPLACES, node.op_type))
