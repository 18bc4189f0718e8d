"""Owns how values lie in bodies of If, Loop and Scan: what they are called, what feeds each, and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from epsinas_onnx._util.fresh import fresh
from epsinas_onnx.graph.traversal import all_graphs, node_bodies, operands

_LOOPS = ("Loop", "Scan")


@dataclass(frozen=True)
class Place:
    """One value of a model: what makes it, and what is in front of it.

    node: what makes the value, for one that a body is given the node which holds that body. given: whether it is one.
    holders: the nodes in whose bodies it lies, outermost first.
    """

    value: ir.Value
    name: str
    node: ir.Node
    given: bool
    holders: tuple[ir.Node, ...]


class Nested:
    """The values of a graph and of all bodies in it, in an order in which each comes after what feeds it.

    The values of a body come before the outputs of the node that holds it. What is handed from turn to turn follows
    from what it is at first, and not from the turn before, so that nothing goes in a circle. names: of every value;
    that of one in a body is its own where no other value has it, else `NODE/ATTRIBUTE/NAME`.
    """

    def __init__(self, graph: ir.Graph, opset: int) -> None:
        self.graph = graph
        self._first = 1 if opset < 9 else 0  # a Scan's lengths come before what it takes
        self.holder_of: dict[ir.Graph, tuple[ir.Node, str]] = {}
        self.position: dict[ir.Node, int] = {}
        for each in all_graphs(graph):
            for index, node in enumerate(each):
                self.position[node] = index
                for attribute, body in bodies(node):
                    self.holder_of[body] = node, attribute
        self.names = self._named()
        self.nodes = {str(node.name): node for node in self.position}

    @classmethod
    def of(cls, model: ir.Model) -> Nested:
        """Return the values of a model."""
        return cls(model.graph, model.opset_imports.get("", 1))

    def _named(self) -> dict[ir.Value, str]:
        everywhere = [(value, each) for each in all_graphs(self.graph) for value in _values(each)]
        times = Counter(value.name for value, _ in everywhere)
        taken = set(times)
        names: dict[ir.Value, str] = {}
        for value, each in everywhere:
            name = str(value.name)
            if each is not self.graph and times[value.name] > 1:
                node, attribute = self.holder_of[each]
                name = fresh(f"{node.name}/{attribute}/{value.name}", taken, "_")
            names[value] = name
        return names

    def places(self, graph: ir.Graph | None = None, holders: tuple[ir.Node, ...] = ()) -> Iterator[Place]:
        """Yield the values that nodes make and that bodies are given, in order; graph inputs are not among them."""
        for node in self.graph if graph is None else graph:
            for _, body in bodies(node):
                inside = (*holders, node)
                yield from (Place(value, self.names[value], node, True, inside) for value in body.inputs)
                yield from self.places(body, inside)
            yield from (Place(v, self.names[v], node, False, holders) for v in node.outputs if v.name)

    def holders(self, node: ir.Node) -> tuple[ir.Node, ...]:
        """Return the nodes in whose bodies a node lies, outermost first."""
        found: list[ir.Node] = []
        graph = node.graph
        while graph in self.holder_of:
            found.insert(0, self.holder_of[graph][0])
            graph = found[0].graph
        return tuple(found)

    def without(self, idle: Collection[tuple[str, str]]) -> set[str]:
        """Return the names of what lies in some bodies, given as the name of a node and of its attribute."""
        found: set[str] = set()
        for value, name in self.names.items():
            graph = value.graph
            while idle and graph in self.holder_of:
                node, attribute = self.holder_of[graph]
                if (node.name, attribute) in idle:
                    found.add(name)
                graph = node.graph
        return found

    def loops_around(self, value: ir.Value) -> int:
        """Return how many of the bodies that a value lies in are run again and again."""
        graph = value.graph
        count = 0
        while graph in self.holder_of:
            node = self.holder_of[graph][0]
            count += node.op_type in _LOOPS
            graph = node.graph
        return count

    def feeding(self, place: Place, dead: frozenset[ir.Graph] | set[ir.Graph] = frozenset()) -> list[ir.Value]:
        """Return the values in front of one. dead: bodies that never run, or were not looked into."""
        node = place.node
        if place.given:
            source = self.given_from(place.value)
            return [] if source is None else [source]
        looked_into = [body for _, body in bodies(node) if body not in dead]
        if not looked_into:
            return list(operands(node))
        index = list(node.outputs).index(place.value)
        decide = list(node.inputs[:2] if node.op_type == "Loop" else node.inputs if node.op_type == "If" else ())
        made = [body.outputs[index + (node.op_type == "Loop")] for body in looked_into]
        return [value for value in (*made, *decide) if value is not None]

    def given_from(self, value: ir.Value) -> ir.Value | None:
        """Return what a body's input is at first: an operand of the node, or the sequence that it is an index of."""
        assert value.graph is not None
        node, _ = self.holder_of[value.graph]
        index = list(value.graph.inputs).index(value)
        if node.op_type == "Loop":
            return node.inputs[index] if index else None  # the first is the number of the turn
        return node.inputs[index + self._first]

    def carried_from(self, value: ir.Value) -> ir.Value | None:
        """Return the output of a body that becomes its input in the next turn; None for one that is no state."""
        assert value.graph is not None
        node, _ = self.holder_of[value.graph]
        index = list(value.graph.inputs).index(value)
        if node.op_type == "Loop":
            return value.graph.outputs[index - 1] if index else None
        return value.graph.outputs[index] if index < self.states(node) else None

    def states(self, node: ir.Node) -> int:
        """Return how many values a Loop or a Scan hands from turn to turn."""
        if node.op_type == "Loop":
            return len(node.inputs) - 2
        return len(node.inputs) - self._first - node.attributes["num_scan_inputs"].as_int()


def bodies(node: ir.Node) -> list[tuple[str, ir.Graph]]:
    """Return the bodies of an If, a Loop or a Scan, with the name of the attribute; of another node none."""
    if node.domain != "" or node.op_type not in ("If", *_LOOPS):
        return []
    return [(one.name, one.as_graph()) for one in node.attributes.values() if one.type == ir.AttributeType.GRAPH]


def node_count(graph: ir.Graph) -> int:
    """Return how many nodes a body has, those of bodies in it included."""
    return sum(1 + sum(map(node_count, node_bodies(node))) for node in graph)


def _values(graph: ir.Graph) -> Sequence[ir.Value]:
    made = [value for node in graph for value in node.outputs if value.name]
    return [*graph.inputs, *(value for value in graph.initializers.values() if not value.is_graph_input()), *made]
