"""Tells how many nodes a model has, and how deep its bodies lie, once its functions are inlined, before they are."""

from __future__ import annotations

from collections.abc import Iterable
from graphlib import CycleError, TopologicalSorter
from typing import NamedTuple

import onnx_ir as ir

from epsinas_onnx.errors import ModelError
from epsinas_onnx.graph.traversal import node_bodies

MOST_NODES = 500_000
"""Nodes of a graph that is made by inlining: large language models have some 100,000."""
MOST_NESTED = 30
"""Bodies inside of bodies: about as deep as protobuf reads, so that no file without functions has more."""

Key = tuple[str, str, str]


class Extent(NamedTuple):
    """nodes: how many, those in bodies included. depth: how many bodies lie inside each other, at most."""

    nodes: int
    depth: int


def check_inlined_size(model: ir.Model, name: str) -> None:
    """Raise ModelError where the functions of a model call each other in a circle, or make too large a graph."""
    calls = {key: set(_called(function, model)) for key, function in model.functions.items()}
    try:
        order = list(TopologicalSorter(calls).static_order())
    except CycleError as error:
        way = " -> ".join(key[1] for key in error.args[1][:4])
        raise ModelError(
            f"{name}: its functions call each other in a circle ({way}), so they cannot be inlined"
        ) from None
    found: dict[Key, Extent] = {}
    for key in order:
        found[key] = _extent(model.functions[key], found)
    total = _extent(model.graph, found)
    if total.nodes > MOST_NODES:
        raise ModelError(
            f"{name}: its functions make a graph of {total.nodes:,} nodes, and {MOST_NODES:,} is the most that is "
            f"inlined; export the model without functions that call each other over and over"
        )
    if total.depth > MOST_NESTED:
        raise ModelError(
            f"{name}: its functions make a graph of bodies {total.depth:,} deep, and {MOST_NESTED} is the most that is "
            f"read"
        )


def _called(nodes: Iterable[ir.Node], model: ir.Model) -> Iterable[Key]:
    for node in nodes:
        if node.op_identifier() in model.functions:
            yield node.op_identifier()
        for body in node_bodies(node):
            yield from _called(body, model)


def _extent(nodes: Iterable[ir.Node], functions: dict[Key, Extent]) -> Extent:
    count = depth = 0
    for node in nodes:
        inlined = functions.get(node.op_identifier(), Extent(1, 0))
        inner = [_extent(body, functions) for body in node_bodies(node)]
        count += inlined.nodes + sum(each.nodes for each in inner)
        depth = max([depth, inlined.depth, *(1 + each.depth for each in inner)])
    return Extent(count, depth)
